#include "device/tensor_products.h"

#include "device/cuda/cuda_device.h"
#include "device/stand_in_device.h"

namespace ferry {

bool tensor_products(const Device& device) {
  if (device.kind() != DeviceKind::kCuda) return false;
  if (const auto* const stand_in = dynamic_cast<const StandInDevice*>(&device))
    return stand_in->tensor_products();
  const auto* const gpu = dynamic_cast<const CudaDevice*>(&device);
  return gpu != nullptr && gpu->tensor_products();
}

bool names_tensor_products(std::string_view device) {
  return device.substr(0, device.find(':')) == kTensorDevice;
}

}  // namespace ferry
