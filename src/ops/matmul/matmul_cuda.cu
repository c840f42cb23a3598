// Batches above each other.
#include "ops/cuda/device_product.h"

namespace ferry::ops {

extern "C" __global__ void matmul_f32(const MatmulCuda c) { product<false>(c, blockIdx.z); }
extern "C" __global__ void matmul_bf16(const MatmulCuda c) { product<true>(c, blockIdx.z); }

}  // namespace ferry::ops
