#include "device/tensor_products.h"

#include "device/cuda/cuda_device.h"

namespace ferry {

bool tensor_products(const Device& device) {
  // A stand-in says that it is of the kind that it stands in for.
  const auto* const gpu = dynamic_cast<const CudaDevice*>(&device);
  return gpu != nullptr && gpu->tensor_products();
}

}  // namespace ferry
