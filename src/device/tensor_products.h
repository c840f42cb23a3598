// Whether a device multiplies matrices of bf16 by units that add in a way of their own.
#pragma once

#include "device/device.h"

namespace ferry {

/// Of "cuda-tensor[:N]": such products do not have the CPU's bits there (docs/numerics.md, "On tensor cores").
bool tensor_products(const Device& device);

}  // namespace ferry
