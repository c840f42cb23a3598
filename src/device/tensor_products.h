// Whether a device multiplies matrices of bf16 by units that add in a way of their own.
#pragma once

#include <string_view>

#include "device/device.h"

namespace ferry {

/// With ":N" for another GPU than the first.
inline constexpr std::string_view kTensorDevice = "cuda-tensor";

/// Of "cuda-tensor[:N]", and of what stands in for it: such products do not have the CPU's bits there
/// (docs/numerics.md, "On tensor cores").
bool tensor_products(const Device& device);
/// Whether a device that is opened by this name would be one.
bool names_tensor_products(std::string_view device);

}  // namespace ferry
