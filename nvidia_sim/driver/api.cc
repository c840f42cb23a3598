// The driver API: arguments are checked, then the driver does it.
#include <cstring>
#include <mutex>
#include <vector>

#include "driver/cuda.h"
#include "driver/driver.h"
#include "driver/result.h"
#include "exec/warp.h"
#include "ptx/parser.h"

namespace {

using nvidia_sim::Access;
using nvidia_sim::Allocation;
using nvidia_sim::Defect;
using nvidia_sim::Driver;
using nvidia_sim::Violation;
namespace result = nvidia_sim::result;

constexpr int kPtxVersionMax = 90;
constexpr unsigned kSharedBytesMax = 48 << 10;
constexpr uint64_t kGridXMax = (uint64_t{1} << 31) - 1;
constexpr unsigned kGridYMax = 65535;
constexpr unsigned kThreadsMax = 1024;
constexpr unsigned kBlockZMax = 64;

std::mutex g_mutex;
std::unique_ptr<Driver> g_driver;
thread_local CUcontext t_context = nullptr;

/// f(driver, the thread's context), for calls that need one: once it was ended by an error, that is
/// the answer.
template <typename F>
CUresult in_context(F&& f) {
  const std::lock_guard lock(g_mutex);
  if (g_driver == nullptr) return result::kNotInitialised;
  if (t_context == nullptr || !g_driver->known(t_context)) return result::kInvalidContext;
  if (t_context->error != 0) return t_context->error;
  return f(*g_driver, *t_context);
}

template <typename F>
CUresult initialised(F&& f) {
  const std::lock_guard lock(g_mutex);
  return g_driver == nullptr ? result::kNotInitialised : f(*g_driver);
}

/// f(driver), for a device that there is.
template <typename F>
CUresult on_device(CUdevice device, F&& f) {
  return initialised([&](Driver& driver) -> CUresult {
    if (device < 0 || device >= driver.settings().devices) return result::kInvalidDevice;
    return f(driver);
  });
}

/// f(driver, context), of a stream that there is.
template <typename F>
CUresult on_stream(CUstream stream, F&& f) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    if (!driver.known(stream) || stream->context != &context) return result::kInvalidHandle;
    return f(driver, context);
  });
}

/// How much of a copy arrives: all, unless the defect is planted.
size_t arriving(const Driver& driver, Defect is_short, size_t bytes) {
  constexpr size_t kLong = 64 << 10, kWhole = 256;
  return driver.planted(is_short) && bytes > kLong ? bytes / kWhole * kWhole : bytes;
}

/// All, unless the defect is planted, by which whole words alone are moved.
size_t whole_words(const Driver& driver, Defect words, size_t bytes) {
  return driver.planted(words) ? bytes / 4 * 4 : bytes;
}

void copy_in(Driver& driver, CUstream stream, CUdeviceptr to, const void* from, size_t bytes) {
  stream->context->memory.around(to, bytes, Access::kWrite);
  const auto* const begin = static_cast<const uint8_t*>(from);
  std::vector<uint8_t> data(begin, begin + arriving(driver, Defect::copy_in_short, bytes));
  if (driver.planted(Defect::copy_in_repeats)) driver.repeat_last_copy(data);
  driver.land(stream, Defect::copy_in_late, to, std::move(data));
}

/// Also of bytes that nobody wrote (NaN): what lies between the rows of a strided tensor is copied,
/// too.
void copy_out(Driver& driver, CUstream stream, void* to, CUdeviceptr from, size_t bytes) {
  const Allocation& a = stream->context->memory.around(from, bytes, Access::kRead);
  const uint8_t* const begin = a.data.data() + (from - a.address);
  const size_t some = arriving(driver, Defect::copy_out_short, bytes);
  if (!driver.planted(Defect::copy_out_late) || !driver.is_pinned(to, bytes)) {
    std::memcpy(to, begin, some);
    return;
  }
  stream->late.push_back([&driver, to, bytes = std::vector(begin, begin + some)] {
    if (driver.is_pinned(to, bytes.size())) std::memcpy(to, bytes.data(), bytes.size());
  });
}

/// What was not written stays so in the copy.
void copy_within(CUcontext_& context, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  const Allocation& source = context.memory.around(from, bytes, Access::kRead);
  Allocation& target = context.memory.around(to, bytes, Access::kWrite);
  if (to < from + bytes && from < to + bytes)
    throw Violation(result::kInvalidValue, "copies between places that overlap");
  const uint64_t at = from - source.address, into = to - target.address;
  std::memcpy(target.data.data() + into, source.data.data() + at, bytes);
  std::memcpy(target.written.data() + into, source.written.data() + at, bytes);
}

/// The bytes of the arguments, in either of the two ways of handing them over.
CUresult gather_params(const nvidia_sim::Kernel& kernel,
                       void** params,
                       void** extra,
                       std::vector<uint8_t>& out) {
  out.assign(kernel.params_bytes, 0);
  if (params != nullptr) {
    for (size_t p = 0; p < kernel.params.size(); ++p)
      std::memcpy(out.data() + kernel.params[p], params[p], kernel.param_bytes[p]);
    return result::kSuccess;
  }
  if (extra == nullptr) return kernel.params_bytes == 0 ? result::kSuccess : result::kInvalidValue;
  const void* buffer = nullptr;
  size_t bytes = 0;
  for (; *extra != nullptr; extra += 2) {
    if (reinterpret_cast<uintptr_t>(*extra) == 1)  // CU_LAUNCH_PARAM_BUFFER_POINTER
      buffer = extra[1];
    else if (reinterpret_cast<uintptr_t>(*extra) == 2)  // CU_LAUNCH_PARAM_BUFFER_SIZE
      bytes = *static_cast<const size_t*>(extra[1]);
    else
      return result::kInvalidValue;
  }
  if (buffer == nullptr || bytes != kernel.params_bytes) return result::kInvalidValue;
  std::memcpy(out.data(), buffer, bytes);
  return result::kSuccess;
}

bool fits(const nvidia_sim::Launch& launch) {
  const nvidia_sim::Dim3 &g = launch.grid, &b = launch.block;
  const nvidia_sim::Kernel& kernel = *launch.kernel;
  const uint64_t threads = b.count();
  return g.count() > 0 && threads > 0 && g.x <= kGridXMax && g.y <= kGridYMax && g.z <= kGridYMax &&
         b.x <= kThreadsMax && b.y <= kThreadsMax && b.z <= kBlockZMax && threads <= kThreadsMax &&
         threads <= kernel.threads_max &&
         (kernel.threads_required == 0 || threads == kernel.threads_required) &&
         kernel.shared_bytes + launch.shared_bytes <= kSharedBytesMax;
}

struct ErrorName {
  int code;
  const char* name;
};
constexpr ErrorName kErrorNames[] = {
    {result::kSuccess, "CUDA_SUCCESS"},
    {result::kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
    {result::kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
    {result::kNotInitialised, "CUDA_ERROR_NOT_INITIALIZED"},
    {result::kNoDevice, "CUDA_ERROR_NO_DEVICE"},
    {result::kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
    {result::kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
    {result::kEccUncorrectable, "CUDA_ERROR_ECC_UNCORRECTABLE"},
    {result::kInvalidPtx, "CUDA_ERROR_INVALID_PTX"},
    {result::kNvlinkUncorrectable, "CUDA_ERROR_NVLINK_UNCORRECTABLE"},
    {result::kUnsupportedPtxVersion, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
    {result::kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
    {result::kNotFound, "CUDA_ERROR_NOT_FOUND"},
    {result::kNotReady, "CUDA_ERROR_NOT_READY"},
    {result::kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {result::kLaunchOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    {result::kLaunchTimeout, "CUDA_ERROR_LAUNCH_TIMEOUT"},
    {result::kMisalignedAddress, "CUDA_ERROR_MISALIGNED_ADDRESS"},
    {result::kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
    {result::kUnknown, "CUDA_ERROR_UNKNOWN"},
};

}  // namespace

const char* ferrySoftwareNvidia() { return "1"; }

const char* ferrySoftwareNvidiaReport() {
  const std::lock_guard lock(g_mutex);
  return g_driver == nullptr ? "" : g_driver->last_report().c_str();
}

const char* ferrySoftwareNvidiaList(const char* what) {
  return what != nullptr && std::strcmp(what, "defects") == 0
             ? nvidia_sim::list_of_defects().c_str()
             : nullptr;
}

void ferrySoftwareNvidiaReset() {
  const std::lock_guard lock(g_mutex);
  g_driver = nullptr;
  t_context = nullptr;
}

CUresult cuInit(unsigned flags) {
  const std::lock_guard lock(g_mutex);
  if (flags != 0) return result::kInvalidValue;
  if (g_driver == nullptr) g_driver = std::make_unique<Driver>();
  return g_driver->settings().devices == 0 ? result::kNoDevice : result::kSuccess;
}

CUresult cuDriverGetVersion(int* version) {
  *version = 13000;
  return result::kSuccess;
}

CUresult cuGetErrorName(CUresult code, const char** name) {
  for (const ErrorName& e : kErrorNames)
    if (e.code == code) {
      *name = e.name;
      return result::kSuccess;
    }
  *name = nullptr;
  return result::kInvalidValue;
}

CUresult cuDeviceGetCount(int* count) {
  return initialised([&](Driver& driver) -> CUresult {
    *count = driver.settings().devices;
    return result::kSuccess;
  });
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return on_device(ordinal, [&](Driver&) -> CUresult {
    *device = ordinal;
    return result::kSuccess;
  });
}

CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return on_device(device, [&](Driver&) -> CUresult {
    constexpr const char* kName = "Software NVIDIA H100";
    if (length < 1) return result::kInvalidValue;
    std::strncpy(name, kName, static_cast<size_t>(length));
    name[length - 1] = '\0';
    return result::kSuccess;
  });
}

CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  return on_device(device, [&](Driver& driver) -> CUresult {
    const int architecture = driver.settings().architecture;
    switch (attribute) {
      case 10: *value = nvidia_sim::kWarpSize; break;  // warp size
      case 13: *value = 1'980'000; break;              // clock, kHz
      case 16: *value = 132; break;                    // multiprocessors
      case 75: *value = architecture / 10; break;      // compute capability, major
      case 76: *value = architecture % 10; break;      // ... minor
      case 115: *value = 1; break;                     // memory pools
      default: return result::kInvalidValue;
    }
    return result::kSuccess;
  });
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return on_device(device, [&](Driver& driver) -> CUresult {
    *bytes = driver.settings().memory;
    return result::kSuccess;
  });
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool* pool, CUdevice device) {
  return on_device(device, [&](Driver& driver) -> CUresult {
    *pool = reinterpret_cast<CUmemoryPool>(driver.primary_context(device));
    return result::kSuccess;
  });
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  return on_device(device, [&](Driver& driver) -> CUresult {
    *context = driver.primary_context(device);
    return (*context)->error;
  });
}

CUresult cuCtxSetCurrent(CUcontext context) {
  return initialised([&](Driver& driver) -> CUresult {
    if (context != nullptr && !driver.known(context)) return result::kInvalidContext;
    t_context = context;
    return result::kSuccess;
  });
}

CUresult cuMemGetInfo_v2(size_t* free, size_t* total) {
  return in_context([&](Driver&, CUcontext_& context) -> CUresult {
    *total = context.memory.total();
    *free = context.memory.total() - context.memory.used();
    return result::kSuccess;
  });
}

CUresult cuMemPoolSetAttribute(CUmemoryPool pool, int attribute, void* value) {
  return initialised([&](Driver& driver) -> CUresult {
    const bool ours = driver.known(reinterpret_cast<const CUcontext_*>(pool));
    return ours && attribute == 4 && value != nullptr ? result::kSuccess : result::kInvalidValue;
  });
}

CUresult cuMemPoolGetAttribute(CUmemoryPool pool, int attribute, void* value) {
  return initialised([&](Driver& driver) -> CUresult {
    const auto* const context = reinterpret_cast<const CUcontext_*>(pool);
    if (!driver.known(context) || (attribute != 5 && attribute != 7)) return result::kInvalidValue;
    const uint64_t used = context->memory.used();  // reserved is what is used: nothing is kept
    std::memcpy(value, &used, sizeof used);
    return result::kSuccess;
  });
}

CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t) {
  return initialised([&](Driver& driver) -> CUresult {
    return driver.known(reinterpret_cast<const CUcontext_*>(pool)) ? result::kSuccess
                                                                   : result::kInvalidValue;
  });
}

CUresult cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (bytes == 0) return result::kInvalidValue;
    if (const int fault = driver.planned_fault_of_allocation(); fault != 0) return fault;
    CUdeviceptr at = 0;
    if (driver.now(Defect::pool_hands_out_twice, 10)) at = context.memory.hand_out_again(bytes);
    if (at == 0) at = context.memory.allocate(bytes);
    if (at == 0) {  // what waits to be freed is freed first
      driver.drain_all(&context);
      if (context.error != 0) return context.error;
      at = context.memory.allocate(bytes);
    }
    if (at == 0) return result::kOutOfMemory;
    *address = at;
    // What overtakes its own memory's beginning would be an illegal access, not an early one.
    if (driver.planted(Defect::launch_overtakes)) context.memory.begin(at);
    driver.enqueue(stream, [&context, at] {
      context.memory.begin(at);
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (!context.memory.is_allocated(address)) return result::kInvalidValue;
    if (driver.planted(Defect::pool_frees_at_once)) {
      context.memory.end(address);
      return result::kSuccess;
    }
    driver.enqueue(stream, [&context, address] {
      context.memory.end(address);
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
  return in_context([&](Driver& driver, CUcontext_&) -> CUresult {
    if (bytes == 0 || flags != 0) return result::kInvalidValue;
    *memory = driver.allocate_host(bytes);
    return result::kSuccess;
  });
}

CUresult cuMemFreeHost(void* memory) {
  return in_context([&](Driver& driver, CUcontext_&) -> CUresult {
    return driver.free_host(memory) ? result::kSuccess : result::kInvalidValue;
  });
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_&) -> CUresult {
    if (bytes == 0) return result::kSuccess;
    if (driver.is_pinned(from, bytes)) {  // read when the stream comes to it
      driver.enqueue_task(stream, [&driver, stream, to, from, bytes] {
        copy_in(driver, stream, to, from, bytes);
        return true;
      });
      return result::kSuccess;
    }
    const auto* const begin = static_cast<const uint8_t*>(from);
    driver.enqueue_task(stream, [&driver, stream, to, staged = std::vector(begin, begin + bytes)] {
      copy_in(driver, stream, to, staged.data(), staged.size());
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (bytes == 0) return result::kSuccess;
    driver.enqueue_task(stream, [&driver, stream, to, from, bytes] {
      copy_out(driver, stream, to, from, bytes);
      return true;
    });
    // Into memory that the device cannot reach by itself the copy ends before the call does.
    if (!driver.is_pinned(to, bytes)) driver.drain(stream);
    return context.error;
  });
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (bytes == 0) return result::kSuccess;
    driver.enqueue_task(stream, [&driver, &context, to, from, bytes] {
      copy_within(context, to, from, whole_words(driver, Defect::copy_within_words, bytes));
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (bytes == 0) return result::kSuccess;
    driver.enqueue_task(stream, [&driver, &context, stream, to, value, bytes] {
      context.memory.around(to, bytes, Access::kWrite);
      const size_t some = whole_words(driver, Defect::fill_words, bytes);
      driver.land(stream, Defect::fill_late, to, std::vector(some, value));
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    if (flags > 1) return result::kInvalidValue;  // 1: does not wait for the default stream
    *stream = driver.create_stream(&context);
    return result::kSuccess;
  });
}

CUresult cuStreamDestroy_v2(CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_&) -> CUresult {
    driver.destroy(stream);
    return result::kSuccess;
  });
}

CUresult cuStreamQuery(CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    driver.step(stream);
    if (context.error != 0) return context.error;
    const size_t running = driver.planted(Defect::query_early) ? 1 : 0;
    return stream->queue.size() <= running ? result::kSuccess : result::kNotReady;
  });
}

CUresult cuStreamSynchronize(CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    driver.drain(stream);
    return context.error;
  });
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  return on_stream(stream, [&](Driver& driver, CUcontext_&) -> CUresult {
    if (flags != 0) return result::kInvalidValue;
    if (!driver.known(event)) return result::kInvalidHandle;
    driver.enqueue(
        stream, [it = driver.held(event), until = event->recorded] { return it->passed >= until; });
    return result::kSuccess;
  });
}

CUresult cuEventCreate(CUevent* event, unsigned flags) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    if (flags > 3) return result::kInvalidValue;
    *event = driver.create_event(&context);
    return result::kSuccess;
  });
}

CUresult cuEventDestroy_v2(CUevent event) {
  return in_context([&](Driver& driver, CUcontext_&) -> CUresult {
    if (!driver.known(event)) return result::kInvalidHandle;
    driver.destroy(event);
    return result::kSuccess;
  });
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
  return on_stream(stream, [&](Driver& driver, CUcontext_&) -> CUresult {
    if (!driver.known(event)) return result::kInvalidHandle;
    event->stream = stream;
    driver.enqueue(stream, [it = driver.held(event), n = ++event->recorded] {
      it->passed = n;
      return true;
    });
    return result::kSuccess;
  });
}

CUresult cuEventQuery(CUevent event) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    if (!driver.known(event)) return result::kInvalidHandle;
    if (driver.planted(Defect::event_early)) return context.error;
    if (event->stream != nullptr && event->passed < event->recorded) driver.step(event->stream);
    if (context.error != 0) return context.error;
    return event->passed < event->recorded ? result::kNotReady : result::kSuccess;
  });
}

CUresult cuEventSynchronize(CUevent event) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    if (!driver.known(event)) return result::kInvalidHandle;
    if (driver.planted(Defect::event_early)) return context.error;
    if (event->stream != nullptr && event->passed < event->recorded) driver.drain(event->stream);
    return context.error;
  });
}

CUresult cuModuleLoadDataEx(
    CUmodule* module, const void* image, unsigned options, const int* names, void** values) {
  return in_context([&](Driver& driver, CUcontext_& context) -> CUresult {
    char* log = nullptr;
    size_t log_bytes = 0;
    for (unsigned n = 0; n < options; ++n) {
      if (names[n] == 5) log = static_cast<char*>(values[n]);  // CU_JIT_ERROR_LOG_BUFFER
      if (names[n] == 6) log_bytes = reinterpret_cast<uintptr_t>(values[n]);  // ... its size
    }
    try {
      const nvidia_sim::Module parsed = nvidia_sim::parse_ptx(static_cast<const char*>(image));
      if (parsed.version > kPtxVersionMax) return result::kUnsupportedPtxVersion;
      if (parsed.target > driver.settings().architecture) return result::kInvalidPtx;
      *module = driver.load_module(&context, parsed);
    } catch (const nvidia_sim::PtxError& e) {
      driver.report(e.what());
      if (log != nullptr && log_bytes > 0) {
        std::strncpy(log, e.what(), log_bytes);
        log[log_bytes - 1] = '\0';
      }
      return result::kInvalidPtx;
    }
    return result::kSuccess;
  });
}

CUresult cuModuleUnload(CUmodule module) {
  return in_context([&](Driver& driver, CUcontext_&) -> CUresult {
    if (!driver.known(module)) return result::kInvalidHandle;
    driver.unload(module);
    return result::kSuccess;
  });
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  return in_context([&](Driver& driver, CUcontext_&) -> CUresult {
    if (!driver.known(module)) return result::kInvalidHandle;
    const auto at = module->functions.find(name);
    if (at == module->functions.end()) return result::kNotFound;
    *function = &at->second;
    return result::kSuccess;
  });
}

CUresult cuLaunchKernel(CUfunction function,
                        unsigned grid_x,
                        unsigned grid_y,
                        unsigned grid_z,
                        unsigned block_x,
                        unsigned block_y,
                        unsigned block_z,
                        unsigned shared_bytes,
                        CUstream stream,
                        void** params,
                        void** extra) {
  return on_stream(stream, [&](Driver& driver, CUcontext_& context) -> CUresult {
    if (!driver.known(function)) return result::kInvalidHandle;
    nvidia_sim::Launch launch{.kernel = function->kernel,
                              .grid = {grid_x, grid_y, grid_z},
                              .block = {block_x, block_y, block_z},
                              .shared_bytes = shared_bytes,
                              .params = {},
                              .memory = &context.memory,
                              .seed = driver.next_seed(),
                              .instructions_max = driver.settings().instructions_max,
                              .architecture = driver.settings().architecture};
    if (!fits(launch)) return result::kInvalidValue;
    if (const int code = gather_params(*function->kernel, params, extra, launch.params); code != 0)
      return code;
    const auto carry_out = [&driver, stream, function, launch = std::move(launch)] {
      const int fault = driver.planned_fault(launch.kernel->name);
      if (fault > 0)
        throw Violation(fault, "a fault that was planned, in kernel " + launch.kernel->name);
      if (fault < 0) {
        stream->hangs = true;
        return true;
      }
      driver.carry_out(stream, *function, launch);
      return true;
    };
    driver.enqueue_task(stream, carry_out, driver.now(Defect::launch_overtakes, 60));
    return result::kSuccess;
  });
}
