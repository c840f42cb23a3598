// AscendCL's calls about memory: device and pinned, fills and copies, virtual addresses.
#include <cstring>

#include "runtime/defects.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/runtime.h"
#include "runtime/settings.h"

using namespace ascend_sim;

ASCEND_DEFECT(copy_lands_late,
              "MemcpyAsync",
              "once in 4 asynchronous copies, lands after the next task of the stream")
ASCEND_DEFECT(copy_reads_early,
              "MemcpyAsync",
              "device to host, reads when it is called instead of when its turn comes")
ASCEND_DEFECT(d2d_copy_stale_row,
              "MemcpyAsync",
              "device to device, leaves 64 bytes in the middle as they were")
ASCEND_DEFECT(h2d_copy_loses_tail,
              "MemcpyAsync",
              "host to device, leaves the bytes behind the last whole 64 as they were")
ASCEND_DEFECT(d2d_copy_beyond_2_mib,
              "MemcpyAsync",
              "device to device, beyond 2 MiB, leaves the last 512 bytes as they were")
ASCEND_DEFECT(h2d_copy_odd_and_long,
              "MemcpyAsync",
              "host to device, of an odd number of bytes beyond 64 KiB, leaves the last one")
ASCEND_DEFECT(memset_loses_tail, "MemsetAsync", "leaves the last 16 bytes as they were")
ASCEND_DEFECT(memset_overruns, "MemsetAsync", "fills on to the next multiple of 512 bytes")

namespace {

enum Kind { kHostToHost, kHostToDevice, kDeviceToHost, kDeviceToDevice, kDefault };

/// A block of rows (one row: a plain copy), checked.
struct Copy {
  void* to = nullptr;
  size_t to_pitch = 0;
  const void* from = nullptr;
  size_t from_pitch = 0;
  size_t width = 0;
  size_t height = 1;
  int kind = kDefault;

  size_t to_size() const { return (height - 1) * to_pitch + width; }
  size_t from_size() const { return (height - 1) * from_pitch + width; }
};

unsigned char* reachable(const void* p) {
  return device_of_address(p) ? alias(p)
                              : const_cast<unsigned char*>(static_cast<const unsigned char*>(p));
}

/// The bytes that move, or what a defect leaves of them.
void move_row(unsigned char* to, const unsigned char* from, size_t size, int kind) {
  if (kind == kDeviceToDevice && size >= 192 && defect("d2d_copy_stale_row")) {
    const size_t hole = size / 128 * 64;
    std::memmove(to, from, hole);
    std::memmove(to + hole + 64, from + hole + 64, size - hole - 64);
    return;
  }
  if (kind == kDeviceToDevice && size > 2 << 20 && defect("d2d_copy_beyond_2_mib")) size -= 512;
  if (kind == kHostToDevice && size > 64 << 10 && size % 2 == 1 && defect("h2d_copy_odd_and_long"))
    --size;
  if (kind == kHostToDevice && size > 64 && defect("h2d_copy_loses_tail")) size -= size % 64;
  std::memmove(to, from, size);
}

void move(const Copy& copy) {
  for (size_t row = 0; row < copy.height; ++row)
    move_row(reachable(copy.to) + row * copy.to_pitch,
             reachable(copy.from) + row * copy.from_pitch,
             copy.width,
             copy.kind);
}

/// Checks one side: device memory that is owned, or memory of the host.
int check_side(const char* what, const void* p, size_t size, bool on_device) {
  const std::string name = std::string(what) + " of the copy ";
  if (on_device != device_of_address(p).has_value())
    return fail(code::kParam, name + (on_device ? "is no device memory" : "is device memory"));
  if (on_device && !owned_device_memory(range_of(p, size)))
    return fail(code::kParam, name + "reaches outside of allocated device memory");
  return 0;
}

/// Between two devices, one must be allowed to touch the other's memory.
int check_peers(const Copy& copy) {
  const int to = *device_of_address(copy.to), from = *device_of_address(copy.from);
  const Runtime& rt = runtime();
  const auto may = [&](int a, int b) {
    return rt.devices[static_cast<size_t>(a)]->peers.contains(b);
  };
  if (to == from || may(to, from) || may(from, to)) return 0;
  return fail(code::kParam,
              "device " + std::to_string(to) + " may not touch device " + std::to_string(from) +
                  "'s memory: aclrtDeviceEnablePeerAccess");
}

/// Fills in a default kind and checks everything. Thread rule: under the lock.
int check(Copy& copy) {
  if (!current_context()) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!copy.to || !copy.from) return fail(code::kParam, "a pointer is null");
  if (copy.height > 1 && (copy.width > copy.to_pitch || copy.width > copy.from_pitch))
    return fail(code::kParam, "rows are wider than their pitch");
  if (copy.kind == kDefault)
    copy.kind = (device_of_address(copy.from) ? kDeviceToHost : kHostToHost) +
                (device_of_address(copy.to) ? 1 : 0);
  if (copy.kind < kHostToHost || copy.kind > kDeviceToDevice)
    return fail(code::kParam, "kind " + std::to_string(copy.kind));
  if (copy.width == 0 || copy.height == 0) return 0;
  const bool to_device = copy.kind == kHostToDevice || copy.kind == kDeviceToDevice;
  const bool from_device = copy.kind == kDeviceToHost || copy.kind == kDeviceToDevice;
  int code = check_side("the target", copy.to, copy.to_size(), to_device);
  if (code == 0) code = check_side("the source", copy.from, copy.from_size(), from_device);
  if (code == 0 && to_device && from_device) code = check_peers(copy);
  return code;
}

int copy_now(Copy copy) {
  {
    const Lock lock(runtime().mutex);
    if (const int code = check(copy); code != 0) return code;
    if (const std::optional<int> fault = fault_of_call("Memcpy"))
      return fail(*fault, "injected by FERRY_ASCEND_SIM_FAULT");
  }
  move(copy);
  return 0;
}

/// The same bytes at a later time: what is moved is read now.
std::function<void()> held_back(const Copy& copy) {
  auto bytes = std::make_shared<std::vector<unsigned char>>(copy.width * copy.height);
  Copy read = copy, write = copy;
  read.to = bytes->data();
  read.to_pitch = copy.width;
  write.from = bytes->data();
  write.from_pitch = copy.width;
  move(read);
  return [write, bytes] { move(write); };
}

std::function<Outcome()> work_of(const Copy& copy) {
  if (copy.kind == kDeviceToHost && defect("copy_reads_early"))
    return [land = held_back(copy)] {
      land();
      return Outcome{};
    };
  if (now_and_then("copy_lands_late", 4))
    return [copy] {
      land_after_next_task([land = held_back(copy)](const std::vector<Range>&) { land(); });
      return Outcome{};
    };
  return [copy] {
    move(copy);
    return Outcome{};
  };
}

int copy_async(Copy copy, aclrtStream handle) {
  Lock lock(runtime().mutex);
  Runtime& rt = runtime();
  int code = 0;
  Stream* stream = find_stream(handle, code);
  if (!stream) return code;
  if ((code = check(copy)) != 0) return code;
  if (copy.kind == kHostToHost)
    return fail(code::kFeatureNotSupported, "asynchronous copies from host to host");
  if (copy.width == 0 || copy.height == 0) return 0;
  auto task = std::make_shared<Task>();
  task->name = "aclrtMemcpyAsync";
  const Range to = range_of(copy.to, copy.to_size()), from = range_of(copy.from, copy.from_size());
  const Range& host = copy.kind == kHostToDevice ? from : to;
  const bool waits = copy.kind != kDeviceToDevice && !rt.pinned.owns(host);
  task->uses = {to, from};
  if (const std::optional<int> fault = fault_of_call("MemcpyAsync"))
    task->run = [fault] { return Outcome{*fault, "injected by FERRY_ASCEND_SIM_FAULT"}; };
  else
    task->run = work_of(copy);
  if ((code = submit(*stream, task)) != 0 || !waits) return code;
  // Pageable memory may go as soon as this returns: so it returns when the bytes have moved.
  const uint64_t aborts = stream->aborts;
  const Progress implies = stream->implies;
  rt.changed.wait(lock,
                  [&] { return has_reached(*stream, task->number) || stream->aborts != aborts; });
  if (stream->aborts != aborts) return fail(stream->abort_code, "while a copy was waited for");
  observe(implies);
  return 0;
}

int check_fill(void* p, size_t most, size_t count) {
  if (!current_context()) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!p || count > most)
    return fail(code::kParam, "a null pointer, or more than the memory's size");
  if (!owned_device_memory(range_of(p, count)))
    return fail(code::kParam, "the memory to fill is not allocated device memory");
  return 0;
}

void fill(void* p, int32_t value, size_t count) {
  if (count > 16 && defect("memset_loses_tail")) count -= 16;
  if (defect("memset_overruns")) {
    const Lock lock(runtime().mutex);
    const size_t wider = (count + 511) / 512 * 512;
    if (owned_device_memory(range_of(p, wider))) count = wider;
  }
  std::memset(alias(p), value, count);
}

int allocate(void** out, size_t size, size_t extra, int policy) {
  const Lock lock(runtime().mutex);
  const Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!out || size == 0 || policy < 0 || policy > 5)
    return fail(code::kParam, "a place for the pointer, a size above 0 and a known policy");
  if (const std::optional<int> fault = fault_of_call("Malloc"))
    return fail(*fault, "injected by FERRY_ASCEND_SIM_FAULT");
  DeviceMemory& memory = *runtime().devices[static_cast<size_t>(context->device)]->memory;
  void* p =
      size > memory.capacity() ? nullptr : memory.allocate(size, (size + 31) / 32 * 32 + extra);
  if (!p)
    return fail(code::kOutOfMemory,
                std::to_string(size) + " bytes asked for; " +
                    std::to_string(memory.capacity() - memory.used()) + " of " +
                    std::to_string(memory.capacity()) + " are left");
  *out = p;
  return 0;
}

/// The memory of the device that an address belongs to; null if there is none.
DeviceMemory* memory_at(const void* p) {
  const std::optional<int> device = device_of_address(p);
  if (!device || *device >= static_cast<int>(runtime().devices.size())) return nullptr;
  return runtime().devices[static_cast<size_t>(*device)]->memory.get();
}

/// As far as it is read here: the device is location's id.
struct PhysicalProperties {
  int32_t handle_type;
  int32_t allocation_type;
  int32_t attributes;
  uint32_t location_id;
  int32_t location_type;
  uint64_t reserve;
};

}  // namespace

extern "C" {

ASCEND_SIM_EXPORT aclError aclrtMalloc(void** p, size_t size, int policy) {
  return allocate(p, size, 32, policy);
}

ASCEND_SIM_EXPORT aclError aclrtMallocAlign32(void** p, size_t size, int policy) {
  return allocate(p, size, 0, policy);
}

ASCEND_SIM_EXPORT aclError aclrtFree(void* p) {
  const Lock lock(runtime().mutex);
  DeviceMemory* memory = memory_at(p);
  const std::optional<Range> range = memory ? memory->allocation(p) : std::nullopt;
  if (!range) return fail(code::kParam, "that is not the start of allocated device memory");
  check_unused(*range, "aclrtFree");
  memory->release(p);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtMallocHost(void** p, size_t size) {
  const Lock lock(runtime().mutex);
  if (!current_context()) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!p || size == 0) return fail(code::kParam, "a place for the pointer and a size above 0");
  *p = runtime().pinned.allocate(size);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtFreeHost(void* p) {
  const Lock lock(runtime().mutex);
  const std::optional<Range> range = runtime().pinned.find(p, true);
  if (!range) return fail(code::kParam, "that is not the start of memory of aclrtMallocHost");
  check_unused(*range, "aclrtFreeHost");
  runtime().pinned.release(p);
  return 0;
}

/// Pins the program's memory. Devices do not see it under an address of their own here.
ASCEND_SIM_EXPORT aclError aclrtHostRegister(void* p, uint64_t size, int type, void** device) {
  const Lock lock(runtime().mutex);
  if (!p || size == 0 || type != 0 || device_of_address(p))
    return fail(code::kParam, "memory of the host, a size above 0 and type 0");
  if (device) return fail(code::kFeatureNotSupported, "device addresses of host memory");
  runtime().pinned.add(p, size);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtHostUnregister(void* p) {
  const Lock lock(runtime().mutex);
  const std::optional<Range> range = runtime().pinned.find(p, false);
  if (!range) return fail(code::kParam, "that is not registered");
  check_unused(*range, "aclrtHostUnregister");
  runtime().pinned.release(p);
  return 0;
}

ASCEND_SIM_EXPORT aclError
aclrtMemcpy(void* to, size_t most, const void* from, size_t count, int kind) {
  if (count > most) return fail(code::kParam, "more bytes than the target holds");
  return copy_now({to, count, from, count, count, 1, kind});
}

ASCEND_SIM_EXPORT aclError aclrtMemcpyAsync(
    void* to, size_t most, const void* from, size_t count, int kind, aclrtStream stream) {
  if (count > most) return fail(code::kParam, "more bytes than the target holds");
  return copy_async({to, count, from, count, count, 1, kind}, stream);
}

ASCEND_SIM_EXPORT aclError aclrtMemcpy2d(void* to,
                                         size_t to_pitch,
                                         const void* from,
                                         size_t from_pitch,
                                         size_t width,
                                         size_t height,
                                         int kind) {
  return copy_now({to, to_pitch, from, from_pitch, width, height, kind});
}

ASCEND_SIM_EXPORT aclError aclrtMemcpy2dAsync(void* to,
                                              size_t to_pitch,
                                              const void* from,
                                              size_t from_pitch,
                                              size_t width,
                                              size_t height,
                                              int kind,
                                              aclrtStream stream) {
  return copy_async({to, to_pitch, from, from_pitch, width, height, kind}, stream);
}

ASCEND_SIM_EXPORT aclError aclrtMemset(void* p, size_t most, int32_t value, size_t count) {
  {
    const Lock lock(runtime().mutex);
    if (const int code = check_fill(p, most, count); code != 0) return code;
  }
  fill(p, value, count);
  return 0;
}

ASCEND_SIM_EXPORT aclError
aclrtMemsetAsync(void* p, size_t most, int32_t value, size_t count, aclrtStream handle) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Stream* stream = find_stream(handle, code);
  if (!stream || (code = check_fill(p, most, count)) != 0) return code;
  auto task = std::make_shared<Task>();
  task->name = "aclrtMemsetAsync";
  task->uses = {range_of(p, count)};
  const std::optional<int> fault = fault_of_call("MemsetAsync");
  task->run = [=] {
    if (fault) return Outcome{*fault, "injected by FERRY_ASCEND_SIM_FAULT"};
    fill(p, value, count);
    return Outcome{};
  };
  return submit(*stream, std::move(task));
}

/// Of the thread's device, whatever kind of memory is asked for: it has one.
ASCEND_SIM_EXPORT aclError aclrtGetMemInfo(int /*attribute*/, size_t* free_bytes, size_t* total) {
  const Lock lock(runtime().mutex);
  const Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!free_bytes || !total) return fail(code::kParam, "there is no place for the answer");
  const DeviceMemory& memory = *runtime().devices[static_cast<size_t>(context->device)]->memory;
  *free_bytes = memory.capacity() - memory.used();
  *total = memory.capacity();
  return 0;
}

ASCEND_SIM_EXPORT aclError
aclrtReserveMemAddress(void** out, size_t size, size_t alignment, void* expected, uint64_t flags) {
  const Lock lock(runtime().mutex);
  const Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  if (!out || size == 0 || alignment != 0 || expected || flags > 1)
    return fail(code::kParam, "alignment 0, no wish for an address, flags 0 or 1");
  *out = runtime().devices[static_cast<size_t>(context->device)]->memory->reserve(size);
  return *out ? 0 : fail(code::kOutOfMemory, "no addresses are left");
}

ASCEND_SIM_EXPORT aclError aclrtReleaseMemAddress(void* p) {
  const Lock lock(runtime().mutex);
  DeviceMemory* memory = memory_at(p);
  if (!memory || !memory->release_reserved(p))
    return fail(code::kParam, "that is not reserved, or something is still mapped there");
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtMallocPhysical(void** handle,
                                               size_t size,
                                               const PhysicalProperties* properties,
                                               uint64_t /*flags*/) {
  const Lock lock(runtime().mutex);
  const Runtime& rt = runtime();
  if (!handle || !properties || properties->location_id >= rt.devices.size() ||
      !rt.devices[properties->location_id]->memory)
    return fail(code::kParam, "a place for the handle, and a device that is set");
  *handle = rt.devices[properties->location_id]->memory->make_physical(size);
  return *handle ? 0
                 : fail(code::kOutOfMemory, std::to_string(size) + " bytes, in multiples of 2 MiB");
}

ASCEND_SIM_EXPORT aclError aclrtFreePhysical(void* handle) {
  const Lock lock(runtime().mutex);
  for (const std::unique_ptr<Device>& device : runtime().devices)
    if (device->memory && device->memory->free_physical(handle)) return 0;
  return fail(code::kParam, "that is no handle, or it is still mapped");
}

/// The pages must be of the device whose addresses they are mapped to.
ASCEND_SIM_EXPORT aclError
aclrtMapMem(void* at, size_t size, size_t offset, void* handle, uint64_t /*flags*/) {
  const Lock lock(runtime().mutex);
  DeviceMemory* memory = memory_at(at);
  if (!memory || !memory->map(at, size, offset, handle))
    return fail(
        code::kParam,
        "mapping needs reserved free addresses, offset 0, a free handle, multiples of 2 MiB");
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtUnmapMem(void* at) {
  const Lock lock(runtime().mutex);
  DeviceMemory* memory = memory_at(at);
  const std::optional<Range> range = memory ? memory->mapping(at) : std::nullopt;
  if (!range) return fail(code::kParam, "nothing is mapped there");
  check_unused(*range, "aclrtUnmapMem");
  memory->unmap(at);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtMemGetAllocationGranularity(const PhysicalProperties* properties,
                                                            int /*option*/,
                                                            size_t* granularity) {
  if (!properties || !granularity) return fail(code::kParam, "a pointer is null");
  *granularity = DeviceMemory::kPage;
  return 0;
}

}  // extern "C"
