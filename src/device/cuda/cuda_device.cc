#include "device/cuda/cuda_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "base/units.h"
#include "device/cuda/errors.h"
#include "device/tensor_products.h"

namespace ferry {
namespace {

constexpr int kDriverLeast = 13000;   // CUDA 13.0: what the kernels' PTX is written in
constexpr int kCapabilityLeast = 80;  // Ampere: bf16

/// By index, and whether for products on tensor cores.
std::map<std::pair<int, bool>, CudaDevice*>& opened() {
  static auto* devices =
      new std::map<std::pair<int, bool>, CudaDevice*>;  // as the devices: never destroyed
  return *devices;
}

thread_local const CudaDevice* t_bound = nullptr;

Result<CudaOptions> options_from_environment() {
  CudaOptions options;
  if (const char* text = std::getenv("FERRY_CUDA_REPLAY"); text != nullptr && *text != '\0') {
    const std::string_view value(text);
    if (value != "0" && value != "1")
      return fail(Code::kInvalidInput, "FERRY_CUDA_REPLAY={}: must be 0 or 1", text);
    options.replay = value == "1";
  }
  if (const char* text = std::getenv("FERRY_CUDA_TIMEOUT_S"); text != nullptr && *text != '\0') {
    char* end = nullptr;
    options.timeout_s = std::strtod(text, &end);
    if (*end != '\0' || !(options.timeout_s >= 0.01 && options.timeout_s <= 86400))
      return fail(
          Code::kInvalidInput, "FERRY_CUDA_TIMEOUT_S={}: must be seconds from 0.01 to 86400", text);
  }
  return options;
}

/// A call of opening a device that answered `code`.
tl::unexpected<Status> refused(int index, const char* call, cuda::Error code) {
  return fail(
      Code::kUnavailable, "device 'cuda:{}': {}: {}", index, call, cuda::describe_code(code));
}

/// cuInit once for the process.
Result<const cuda::Library*> initialised_library() {
  TRY_ASSIGN(const cuda::Library* const library, cuda::open_library());
  static const cuda::Error code = library->cuInit(0);
  if (code == cuda::kNoDevice)
    return fail(Code::kUnavailable, "no NVIDIA device: cuInit: {}", cuda::describe_code(code));
  if (code != 0) return fail(Code::kUnavailable, "cuInit: {}", cuda::describe_code(code));
  int version = 0;
  if (const cuda::Error asked = library->cuDriverGetVersion(&version); asked != 0)
    return fail(Code::kUnavailable, "cuDriverGetVersion: {}", cuda::describe_code(asked));
  if (version < kDriverLeast)
    return fail(Code::kUnavailable,
                "NVIDIA's driver is for CUDA {}.{}; Ferry's kernels need 13.0: driver 580 or newer",
                version / 1000,
                version % 1000 / 10);
  return library;
}

cuda::Address address_of(const void* p) { return reinterpret_cast<cuda::Address>(p); }

}  // namespace

Result<CudaDevice::Chip> CudaDevice::accepted_chip(const cuda::Library& library, int index) {
  Chip chip = {};
  if (const auto code = library.cuDeviceGet(&chip.id, index); code != 0)
    return refused(index, "cuDeviceGet", code);
  char name[256] = {};
  if (const auto code = library.cuDeviceGetName(name, sizeof name, chip.id); code != 0)
    return refused(index, "cuDeviceGetName", code);
  chip.name = name;
  if (const auto code = library.cuDeviceTotalMem_v2(&chip.memory_bytes, chip.id); code != 0)
    return refused(index, "cuDeviceTotalMem", code);
  int major = 0, minor = 0, pools = 0;
  const std::pair<cuda::Attribute, int*> wanted[] = {
      {cuda::kCapabilityMajor, &major},
      {cuda::kCapabilityMinor, &minor},
      {cuda::kMultiprocessors, &chip.multiprocessors},
      {cuda::kClockKhz, &chip.clock_khz},
      {cuda::kMemoryPools, &pools}};
  for (const auto& [attribute, value] : wanted)
    if (const auto code = library.cuDeviceGetAttribute(value, attribute, chip.id); code != 0)
      return refused(index, "cuDeviceGetAttribute", code);
  chip.capability = 10 * major + minor;
  if (chip.capability < kCapabilityLeast)
    return fail(Code::kUnavailable,
                "device 'cuda:{}': {} has compute capability {}.{}; Ferry runs on 8.0 (Ampere) and "
                "newer",
                index,
                chip.name,
                major,
                minor);
  if (pools == 0)
    return fail(Code::kUnavailable,
                "device 'cuda:{}': {} offers no memory pools here; Ferry needs them",
                index,
                chip.name);
  return chip;
}

Result<CudaDevice*> CudaDevice::open(int index, bool tensor_products) {
  if (const auto it = opened().find({index, tensor_products}); it != opened().end())
    return it->second;
  TRY_ASSIGN(const CudaOptions options, options_from_environment());
  TRY_ASSIGN(const cuda::Library* const found, initialised_library());
  const cuda::Library& library = *found;
  int count = 0;
  if (const auto code = library.cuDeviceGetCount(&count); code != 0)
    return refused(index, "cuDeviceGetCount", code);
  if (index < 0 || index >= count)
    return fail(Code::kUnavailable, "device 'cuda:{}': this machine has {}", index, count);
  TRY_ASSIGN(Chip chip, accepted_chip(library, index));
  cuda::Context context = nullptr;
  if (const auto code = library.cuDevicePrimaryCtxRetain(&context, chip.id); code != 0)
    return refused(index, "cuDevicePrimaryCtxRetain", code);
  t_bound = nullptr;  // whoever is used next binds its own
  if (const auto code = library.cuCtxSetCurrent(context); code != 0)
    return refused(index, "cuCtxSetCurrent", code);
  cuda::StreamHandle stream = nullptr;
  if (const auto code = library.cuStreamCreate(&stream, cuda::kStreamNonBlocking); code != 0)
    return refused(index, "cuStreamCreate", code);
  cuda::MemoryPool pool = nullptr;
  if (const auto code = library.cuDeviceGetDefaultMemPool(&pool, chip.id); code != 0)
    return refused(index, "cuDeviceGetDefaultMemPool", code);
  uint64_t keeps = UINT64_MAX;  // freed memory stays ours: to return it would wait for the device
  if (const auto code = library.cuMemPoolSetAttribute(pool, cuda::kPoolKeepsBytes, &keeps);
      code != 0)
    return refused(index, "cuMemPoolSetAttribute", code);
  return opened()[{index, tensor_products}] = new CudaDevice(
             index, tensor_products, library, std::move(chip), context, stream, pool, options);
}

CudaDevice::CudaDevice(int index,
                       bool tensor_products,
                       const cuda::Library& library,
                       Chip chip,
                       cuda::Context context,
                       cuda::StreamHandle stream,
                       cuda::MemoryPool pool,
                       const CudaOptions& options)
    : tensor_products_(tensor_products),
      name_(fmt::format("{}:{}", tensor_products ? kTensorDevice : "cuda", index)),
      library_(library),
      chip_(std::move(chip)),
      context_(context),
      pool_(pool),
      options_(options),
      stream_(*this, stream),
      uploads_(*this) {}

std::string CudaDevice::describe() const {
  return fmt::format("{}{} {}, sm_{}, {}{}",
                     software() ? fmt::format("software NVIDIA ({}) as ", library_.software) : "",
                     name_,
                     chip_.name,
                     chip_.capability,
                     format_bytes(static_cast<double>(chip_.memory_bytes)),
                     tensor_products_ ? ", bf16 products on tensor cores" : "");
}

/// Dense bf16 by the matrix units of the architectures whose rate is published.
double CudaDevice::peak_flops_bf16() const {
  const double per_cycle = chip_.capability == 90 ? 4096 : chip_.capability == 80 ? 2048 : 0;
  return software() ? 0 : per_cycle * chip_.multiprocessors * chip_.clock_khz * 1e3;
}

std::optional<uint64_t> CudaDevice::memory_available() const {
  size_t free_bytes = 0, total_bytes = 0;
  bind();
  const cuda::Error code = library_.cuMemGetInfo_v2(&free_bytes, &total_bytes);
  if (code != 0)
    throw DeviceError(
        name_, code, fmt::format("{}: cuMemGetInfo: {}", name_, cuda::describe_code(code)));
  const MemoryUse use = memory_use();
  return free_bytes + (use.reserved_bytes - use.live_bytes);
}

MemoryUse CudaDevice::memory_use() const {
  MemoryUse use = use_;
  uint64_t reserved = 0;
  const bool known =
      library_.cuMemPoolGetAttribute(pool_, cuda::kPoolReservedBytes, &reserved) == 0;
  use.reserved_bytes = std::max<size_t>(known ? reserved : 0, use.live_bytes);
  return use;
}

void CudaDevice::bind() const {
  if (t_bound == this) return;
  const cuda::Error code = library_.cuCtxSetCurrent(context_);
  if (code != 0)
    throw DeviceError(
        name_, code, fmt::format("{}: cuCtxSetCurrent: {}", name_, cuda::describe_code(code)));
  t_bound = this;
}

void CudaDevice::checked(cuda::Error code, const char* call) {
  if (code != 0) stream_.fail(code, call);
}

// --- memory ---

void* CudaDevice::allocate(size_t bytes) {
  bind();
  // As asked for, not rounded up: the driver's pool has its own units, and what watches bounds
  // (compute-sanitizer, software NVIDIA) sees those of the tensor.
  const size_t whole = std::max<size_t>(bytes, 1);
  cuda::Address address = 0;
  cuda::Error code = library_.cuMemAllocAsync(&address, whole, stream_.handle());
  if (code == cuda::kOutOfMemory) {
    stream_.synchronize();  // what was freed and not reached yet
    checked(library_.cuMemPoolTrimTo(pool_, 0), "cuMemPoolTrimTo");
    code = library_.cuMemAllocAsync(&address, whole, stream_.handle());
  }
  if (code != 0)
    stream_.fail(code,
                 "cuMemAllocAsync",
                 fmt::format(": asking for {}, {} in use",
                             format_bytes(static_cast<double>(whole)),
                             format_bytes(static_cast<double>(use_.live_bytes))));
  use_.live_bytes += whole;
  use_.peak_bytes = std::max(use_.peak_bytes, use_.live_bytes);
  return reinterpret_cast<void*>(address);
}

/// Destructors come here, also while a DeviceError is on its way: what a device that failed answers
/// is no news, and its memory is gone with it.
void CudaDevice::deallocate(void* p, size_t bytes) {
  use_.live_bytes -= std::max<size_t>(bytes, 1);
  if (t_bound != this && library_.cuCtxSetCurrent(context_) == 0) t_bound = this;
  static_cast<void>(library_.cuMemFreeAsync(address_of(p), stream_.handle()));
}

// --- copies ---

void CudaDevice::copy_from_host(void* device, const void* host, size_t bytes) {
  bind();
  stream_.begin("copy to the device");
  for (size_t at = 0; at < bytes; at += UploadRing::kPartBytesMax) {
    const size_t part = std::min(UploadRing::kPartBytesMax, bytes - at);
    void* const pinned = uploads_.take(part);
    std::memcpy(pinned, static_cast<const char*>(host) + at, part);
    checked(library_.cuMemcpyHtoDAsync_v2(address_of(device) + at, pinned, part, stream_.handle()),
            "cuMemcpyHtoDAsync");
    uploads_.sent();
    stream_.launched("cuMemcpyHtoDAsync");
  }
}

void CudaDevice::copy_to_host(void* host, const void* device, size_t bytes) {
  bind();
  stream_.begin("copy from the device");
  if (download_ == nullptr)
    checked(library_.cuMemHostAlloc(&download_, kDownloadBytes, 0), "cuMemHostAlloc");
  for (size_t at = 0; at < bytes; at += kDownloadBytes) {
    const size_t part = std::min(kDownloadBytes, bytes - at);
    checked(
        library_.cuMemcpyDtoHAsync_v2(download_, address_of(device) + at, part, stream_.handle()),
        "cuMemcpyDtoHAsync");
    stream_.launched("cuMemcpyDtoHAsync");
    stream_.synchronize();
    std::memcpy(static_cast<char*>(host) + at, download_, part);
  }
}

void CudaDevice::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  bind();
  stream_.begin("copy");
  checked(library_.cuMemcpyDtoDAsync_v2(address_of(to), address_of(from), bytes, stream_.handle()),
          "cuMemcpyDtoDAsync");
  stream_.launched("cuMemcpyDtoDAsync");
}

void CudaDevice::fill_zero(void* p, size_t bytes) {
  if (bytes == 0) return;
  bind();
  stream_.begin("fill with zeros");
  checked(library_.cuMemsetD8Async(address_of(p), 0, bytes, stream_.handle()), "cuMemsetD8Async");
  stream_.launched("cuMemsetD8Async");
}

// --- kernels ---

cuda::Function CudaDevice::function(const char* ptx, const char* kernel) {
  cuda::Function& known = functions_[{ptx, kernel}];
  if (known != nullptr) return known;
  cuda::Module& module = modules_[ptx];
  if (module == nullptr) {
    char log[4096] = {};
    cuda::JitOption names[] = {cuda::kErrorLog, cuda::kErrorLogBytes};
    void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
    if (const auto code = library_.cuModuleLoadDataEx(&module, ptx, 2, names, values); code != 0)
      stream_.fail(code, "cuModuleLoadDataEx", fmt::format("; {}: {}", kernel, log));
  }
  checked(library_.cuModuleGetFunction(&known, module, kernel), kernel);
  return known;
}

void CudaDevice::launch(const char* ptx,
                        const char* kernel,
                        CudaGrid grid,
                        CudaGrid block,
                        const void* args,
                        size_t args_bytes) {
  bind();
  const cuda::Function f = function(ptx, kernel);
  void* extra[] = {reinterpret_cast<void*>(cuda::kParamsBuffer),
                   const_cast<void*>(args),
                   reinterpret_cast<void*>(cuda::kParamsBytes),
                   &args_bytes,
                   reinterpret_cast<void*>(cuda::kParamsEnd)};
  checked(library_.cuLaunchKernel(f,
                                  grid.x,
                                  grid.y,
                                  grid.z,
                                  block.x,
                                  block.y,
                                  block.z,
                                  0,
                                  stream_.handle(),
                                  nullptr,
                                  extra),
          kernel);
  stream_.launched(kernel);
}

}  // namespace ferry
