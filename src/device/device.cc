#include "device/device.h"

#include <algorithm>
#include <bit>
#include <charconv>

#include "device/ascend/ascend_device.h"
#include "device/cpu/cpu_device.h"
#include "device/cuda/cuda_device.h"
#include "device/tensor_products.h"

namespace ferry {

const char* to_string(DeviceKind kind) {
  switch (kind) {
    case DeviceKind::kCpu: return "cpu";
    case DeviceKind::kCuda: return "cuda";
    case DeviceKind::kAscend: return "ascend";
  }
  return "?";
}

DeviceError::DeviceError(std::string device,
                         int64_t code,
                         const std::string& message,
                         std::string op)
    : std::runtime_error(message), device_(std::move(device)), code_(code), op_(std::move(op)) {}

namespace {

/// 2 of "ascend:2", 0 of "ascend".
Result<int> index_of(std::string_view name) {
  const size_t colon = name.find(':');
  if (colon == std::string_view::npos) return 0;
  const std::string_view digits = name.substr(colon + 1);
  int index = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  if (error != std::errc() || end != digits.data() + digits.size() || index < 0)
    return fail(Code::kInvalidInput, "device '{}': after the colon belongs a number", name);
  return index;
}

}  // namespace

size_t pool_block_bytes(size_t bytes) {
  const size_t wanted = std::max<size_t>(bytes, 1);
  const size_t step = wanted <= 4096 ? 64 : std::bit_floor(wanted) / 8;
  return (wanted + step - 1) / step * step;
}

MemoryAvailable memory_available(const Device& device) {
  const std::optional<uint64_t> own = device.memory_available();
  return own ? MemoryAvailable{*own, ""} : memory_available();
}

Result<Device*> open_device(std::string_view name) {
  const std::string_view kind = name.substr(0, name.find(':'));
  if (name == "cpu") return &cpu_device();
  if (kind == "ascend") {
    TRY_ASSIGN(const int index, index_of(name));
    TRY_ASSIGN(AscendDevice* const device, AscendDevice::open(index));
    return device;
  }
  if (kind == "cuda" || kind == kTensorDevice) {
    TRY_ASSIGN(const int index, index_of(name));
    TRY_ASSIGN(CudaDevice* const device, CudaDevice::open(index, kind == kTensorDevice));
    return device;
  }
  return fail(Code::kInvalidInput,
              "device '{}': unknown; use cpu, cuda[:N], cuda-tensor[:N] or ascend[:N]",
              name);
}

}  // namespace ferry
