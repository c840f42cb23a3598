#include "device/device.h"

#include "device/cpu/cpu_device.h"

namespace ferry {

const char* to_string(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu: return "cpu";
    case DeviceKind::kCuda: return "cuda";
    case DeviceKind::kAscend: return "ascend";
  }
  return "?";
}

DeviceError::DeviceError(std::string device, int64_t code, const std::string& message)
    : std::runtime_error(message), device_(std::move(device)), code_(code) {}

Result<Device*> open_device(std::string_view name) {
  const std::string_view kind = name.substr(0, name.find(':'));
  if (kind == "cpu") return &cpu_device();
  if (kind == "cuda" || kind == "ascend")
    return fail(Code::kUnavailable,
                "device '{}': this build of Ferry has no {} backend; use --device cpu",
                name,
                kind);
  return fail(Code::kInvalidInput, "device '{}': unknown; use cpu, cuda[:N] or ascend[:N]", name);
}

}  // namespace ferry
