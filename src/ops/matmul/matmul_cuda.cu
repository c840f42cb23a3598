// Batches above each other.
#include "ops/cuda/device_product.h"
#include "ops/cuda/device_tensor_product.h"

namespace ferry::ops {

/// The first row of a block of so many rows.
__device__ __forceinline__ int64_t first_row(int rows) {
  return static_cast<int64_t>(blockIdx.x) * rows;
}

extern "C" __global__ void matmul_f32(const MatmulCuda c) {
  product<false>(c, blockIdx.z, first_row(kMatmulTile));
}
extern "C" __global__ void matmul_bf16(const MatmulCuda c) {
  product<true>(c, blockIdx.z, first_row(kMatmulTile));
}

#define FERRY_TENSOR_KERNEL(name, a, b, tile_m)                                              \
  extern "C" __global__ void __launch_bounds__(kTensorThreads, 2) name(const MatmulCuda c) { \
    tensor_product<a, b, tile_m>([&] { return c; }, first_row(tile_m), blockIdx.z);          \
  }
FERRY_TENSOR_KERNEL(matmul_tensor_kk, Lies::kAlongK, Lies::kAlongK, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_kr, Lies::kAlongK, Lies::kAlongRows, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_rr, Lies::kAlongRows, Lies::kAlongRows, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_any, Lies::kAnyhow, Lies::kAnyhow, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_few_rows, Lies::kAlongK, Lies::kAlongK, kTensorFewM)

}  // namespace ferry::ops
