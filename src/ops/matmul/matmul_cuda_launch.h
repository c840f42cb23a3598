// Products on CUDA for kernels of other ops, which have made their problems themselves.
#pragma once

#include <cstdint>

#include "device/device.h"
#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops::cuda {

/// m, n and batches > 0. `bf16`: the type of the products, else f32; on tensor cores if the device was opened for that
/// (cuda-tensor). Throws DeviceError.
void launch_matmul(Stream& stream, const MatmulCuda& call, int64_t batches, bool bf16);

/// How operands lie, which decides how kernels for tensor cores fetch them, and no bit of the result: along k (k
/// contiguous) or along their rows, in the order of their letters; kAny is everything else.
enum class TensorLayout : uint8_t { kKK, kKR, kRR, kAny };
TensorLayout tensor_layout(const MatmulCuda& call, int64_t batches);

}  // namespace ferry::ops::cuda
