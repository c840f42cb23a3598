// AscendCL's calls about the process, devices, contexts, and errors.
#include <algorithm>
#include <cstring>

#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/mutant_kinds.h"
#include "runtime/runtime.h"
#include "runtime/settings.h"

using namespace ascend_sim;

namespace {

/// An uncorrectable range of device memory, as aclrtGetMemUceInfo hands it out.
struct MemUceInfo {
  void* address;
  size_t size;
  size_t reserved[14];
};

int not_initialised() { return fail(code::kUninitialized, "call aclInit first"); }

/// The device of that number; null, with fail() done, if there is none.
Device* find_device(int32_t number, int& code) {
  Runtime& rt = runtime();
  if (!rt.initialised) {
    code = not_initialised();
    return nullptr;
  }
  if (number < 0 || number >= static_cast<int32_t>(rt.devices.size())) {
    code = fail(code::kDeviceId,
                "device " + std::to_string(number) + " of " + std::to_string(rt.devices.size()));
    return nullptr;
  }
  return rt.devices[static_cast<size_t>(number)].get();
}

/// The device of the thread's context; null, with fail() done, if there is no context.
Device* current_device(int& code) {
  const Context* context = current_context();
  if (!context) {
    code = fail(code::kNoContext, "call aclrtSetDevice in this thread first");
    return nullptr;
  }
  return find_device(context->device, code);
}

Context* make_context(int device) {
  auto context = std::make_unique<Context>();
  context->device = device;
  context->default_stream = make_stream(*context);
  Context* key = context.get();
  runtime().contexts[key] = std::move(context);
  return key;
}

/// Streams first: waits for them unless `force`.
void destroy_context(Lock& lock, Context* context, bool force) {
  Runtime& rt = runtime();
  for (Stream* stream : streams_of(*context)) {
    close_stream(lock, *stream, force);
    rt.streams.erase(stream);
  }
  rt.contexts.erase(context);
}

void reset_device(Lock& lock, Device& device, bool force) {
  std::vector<Context*> mine;
  for (const auto& [key, context] : runtime().contexts)
    if (context->device == device.number) mine.push_back(key);
  for (Context* context : mine) destroy_context(lock, context, force);
  device.context = nullptr;
  device.references = 0;
  device.memory.reset();
  device.bad_memory.clear();
  device.peers.clear();
}

void end(Lock& lock) {
  Runtime& rt = runtime();
  for (const std::unique_ptr<Device>& device : rt.devices) reset_device(lock, *device, true);
  rt.devices.clear();
  rt.initialised = false;
  rt.options.clear();
  rt.unobserved.clear();
  rt.observed.clear();
}

int set_option(std::map<int, int64_t>& options, int option, int64_t value) {
  constexpr int kDeterministic = 0, kDebugKernel = 1, kStrongConsistency = 2;
  const bool known =
      (option == kDeterministic && value >= 0 && value <= 3) ||
      ((option == kDebugKernel || option == kStrongConsistency) && (value == 0 || value == 1));
  if (!known)
    return fail(code::kParam,
                "option " + std::to_string(option) + " cannot be " + std::to_string(value));
  options[option] = value;
  return 0;
}

int get_option(const std::map<int, int64_t>& options, int option, int64_t* value) {
  if (!value) return fail(code::kParam, "value is null");
  const auto it = options.find(option);
  *value = it == options.end() ? 0 : it->second;
  return 0;
}

int abort_device(int32_t number, uint32_t timeout_ms) {
  constexpr uint32_t kLongest = 36 * 60 * 1000;
  Lock lock(runtime().mutex);
  int code = 0;
  if (!find_device(number, code)) return code;
  if (timeout_ms > kLongest) return fail(code::kParam, "at most 36 minutes");
  code = abort_streams(lock,
                       streams_of_device(number),
                       code::kDeviceTaskAbort,
                       timeout_ms == 0 ? -1 : static_cast<int64_t>(timeout_ms));
  for (const auto& [key, context] : runtime().contexts)
    if (context->device == number) context->stopped_by = 0;
  return code;
}

}  // namespace

extern "C" {

ASCEND_SIM_EXPORT aclError aclInit(const char* /*config_path*/) {
  Lock lock(runtime().mutex);
  Runtime& rt = runtime();
  if (rt.initialised) return fail(code::kRepeatInitialize, "aclInit");
  read_settings();
  reset_faults();
  reset_defects();
  for (int i = 0; i < settings().devices; ++i) {
    rt.devices.push_back(std::make_unique<Device>());
    rt.devices.back()->number = i;
  }
  rt.initialised = true;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclFinalize() {
  Lock lock(runtime().mutex);
  if (!runtime().initialised) return not_initialised();
  end(lock);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtGetDeviceCount(uint32_t* count) {
  const Lock lock(runtime().mutex);
  if (!runtime().initialised) return not_initialised();
  if (!count) return fail(code::kParam, "count is null");
  *count = static_cast<uint32_t>(runtime().devices.size());
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtSetDevice(int32_t number) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Device* device = find_device(number, code);
  if (!device) return code;
  if (!device->memory) device->memory = std::make_unique<DeviceMemory>(number, settings().memory);
  if (!device->context) {
    device->context = make_context(number);
    device->context->is_default = true;
  }
  ++device->references;
  set_current_context(device->context);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtResetDevice(int32_t number) {
  Lock lock(runtime().mutex);
  int code = 0;
  Device* device = find_device(number, code);
  if (!device) return code;
  if (device->references == 0) return fail(code::kDeviceId, "the device is not set");
  if (--device->references == 0) reset_device(lock, *device, false);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtResetDeviceForce(int32_t number) {
  Lock lock(runtime().mutex);
  int code = 0;
  Device* device = find_device(number, code);
  if (!device) return code;
  reset_device(lock, *device, true);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtGetDevice(int32_t* number) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Device* device = current_device(code);
  if (!device) return code;
  if (!number) return fail(code::kParam, "device is null");
  *number = device->number;
  return 0;
}

ASCEND_SIM_EXPORT const char* aclrtGetSocName() { return settings().chip->name.c_str(); }

ASCEND_SIM_EXPORT aclError aclrtCreateContext(aclrtContext* out, int32_t number) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Device* device = find_device(number, code);
  if (!device) return code;
  if (!out) return fail(code::kParam, "context is null");
  if (!device->memory) device->memory = std::make_unique<DeviceMemory>(number, settings().memory);
  Context* context = make_context(number);
  set_current_context(context);
  *out = context;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtDestroyContext(aclrtContext handle) {
  Lock lock(runtime().mutex);
  const auto it = runtime().contexts.find(static_cast<Context*>(handle));
  if (it == runtime().contexts.end()) return fail(code::kInvalidHandle, "that is no context");
  if (it->second->is_default)
    return fail(code::kParam, "a device's own context ends with aclrtResetDevice");
  destroy_context(lock, it->first, false);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtSetCurrentContext(aclrtContext handle) {
  const Lock lock(runtime().mutex);
  auto* context = static_cast<Context*>(handle);
  if (!runtime().contexts.contains(context)) return fail(code::kParam, "that is no context");
  set_current_context(context);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtGetCurrentContext(aclrtContext* out) {
  const Lock lock(runtime().mutex);
  if (!out) return fail(code::kParam, "context is null");
  Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  *out = context;
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtSetSysParamOpt(int option, int64_t value) {
  const Lock lock(runtime().mutex);
  return set_option(runtime().options, option, value);
}

ASCEND_SIM_EXPORT aclError aclrtGetSysParamOpt(int option, int64_t* value) {
  const Lock lock(runtime().mutex);
  return get_option(runtime().options, option, value);
}

ASCEND_SIM_EXPORT aclError aclrtCtxSetSysParamOpt(int option, int64_t value) {
  const Lock lock(runtime().mutex);
  Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  return set_option(context->options, option, value);
}

ASCEND_SIM_EXPORT aclError aclrtCtxGetSysParamOpt(int option, int64_t* value) {
  const Lock lock(runtime().mutex);
  const Context* context = current_context();
  if (!context) return fail(code::kNoContext, "call aclrtSetDevice in this thread first");
  return get_option(context->options, option, value);
}

ASCEND_SIM_EXPORT aclError aclrtDeviceCanAccessPeer(int32_t* can, int32_t number, int32_t peer) {
  const Lock lock(runtime().mutex);
  int code = 0;
  if (!find_device(number, code) || !find_device(peer, code)) return code;
  if (!can || number == peer) return fail(code::kParam, "two devices and a place for the answer");
  *can = 1;
  return 0;
}

/// The thread's device may then touch the peer's memory; the other way round is another call.
ASCEND_SIM_EXPORT aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Device* device = current_device(code);
  if (!device || !find_device(peer, code)) return code;
  if (flags != 0 || peer == device->number)
    return fail(code::kParam, "flags must be 0 and the peer another device");
  device->peers.insert(peer);
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtDeviceDisablePeerAccess(int32_t peer) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Device* device = current_device(code);
  if (!device || !find_device(peer, code)) return code;
  if (device->peers.erase(peer) == 0) return fail(code::kParam, "the access was not enabled");
  return 0;
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout_ms) {
  Lock lock(runtime().mutex);
  int code = 0;
  const Device* device = current_device(code);
  if (!device) return code;
  return synchronize(lock, streams_of_device(device->number), timeout_ms);
}

ASCEND_SIM_EXPORT aclError aclrtSynchronizeDevice() {
  return aclrtSynchronizeDeviceWithTimeout(-1);
}

ASCEND_SIM_EXPORT aclError aclrtDeviceTaskAbort(int32_t number, uint32_t timeout_ms) {
  return abort_device(number, timeout_ms);
}

ASCEND_SIM_EXPORT aclError aclrtSetOpExecuteTimeOut(uint32_t seconds) {
  const Lock lock(runtime().mutex);
  runtime().execute_timeout_s = seconds;
  return 0;
}

// Level 0, the thread's, is the only one. A failure of a task shows here before it is waited for.
ASCEND_SIM_EXPORT aclError aclrtPeekAtLastError(int /*level*/) {
  const Lock lock(runtime().mutex);
  const int last = last_error(false);
  return last != 0 ? last : pending_failure(false);
}

ASCEND_SIM_EXPORT aclError aclrtGetLastError(int /*level*/) {
  const Lock lock(runtime().mutex);
  const int last = last_error(true);
  if (last != 0) return last;
  const int pending = pending_failure(true);
  last_error(true);
  return pending;
}

ASCEND_SIM_EXPORT aclError aclrtGetMemUceInfo(int32_t number,
                                              MemUceInfo* infos,
                                              size_t size,
                                              size_t* count) {
  const Lock lock(runtime().mutex);
  int code = 0;
  const Device* device = find_device(number, code);
  if (!device) return code;
  if (!infos || !count) return fail(code::kParam, "there is no place for the answer");
  *count = std::min(size, device->bad_memory.size());
  for (size_t i = 0; i < *count; ++i)
    infos[i] = {
        reinterpret_cast<void*>(device->bad_memory[i].begin), device->bad_memory[i].size, {}};
  return 0;
}

/// The pages named are good again; what was in them is lost.
ASCEND_SIM_EXPORT aclError aclrtMemUceRepair(int32_t number, MemUceInfo* infos, size_t size) {
  const Lock lock(runtime().mutex);
  int code = 0;
  Device* device = find_device(number, code);
  if (!device) return code;
  if (!infos) return fail(code::kParam, "there are no pages");
  for (size_t i = 0; i < size; ++i) {
    const Range page = range_of(infos[i].address, infos[i].size);
    const auto bad =
        std::find_if(device->bad_memory.begin(), device->bad_memory.end(), [&](const Range& r) {
          return r.begin == page.begin && r.size == page.size;
        });
    if (bad == device->bad_memory.end()) return fail(code::kParam, "that page is not a bad one");
    std::memset(alias(infos[i].address), 0xFF, page.size);
    device->bad_memory.erase(bad);
  }
  return 0;
}

ASCEND_SIM_EXPORT size_t aclDataTypeSize(aclDataType type) {
  switch (type) {
    case ACL_INT8:
    case ACL_UINT8:
    case ACL_BOOL: return 1;
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_INT16:
    case ACL_UINT16: return 2;
    case ACL_FLOAT:
    case ACL_INT32:
    case ACL_UINT32: return 4;
    case ACL_INT64:
    case ACL_UINT64:
    case ACL_DOUBLE: return 8;
    default: return 0;
  }
}

}  // extern "C"
