// Products on CUDA for kernels of other ops, which have made their problems themselves.
#pragma once

#include <cstdint>

#include "device/device.h"
#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops::cuda {

/// m, n and batches > 0. `bf16`: the type of the products, else f32. Throws DeviceError.
void launch_matmul(Stream& stream, const MatmulCuda& call, int64_t batches, bool bf16);

}  // namespace ferry::ops::cuda
