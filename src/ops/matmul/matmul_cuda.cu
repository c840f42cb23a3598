// Batches above each other.
#include "ops/cuda/device_product.h"
#include "ops/cuda/device_tensor_product.h"

namespace ferry::ops {

extern "C" __global__ void matmul_f32(const MatmulCuda c) { product<false>(c, blockIdx.z); }
extern "C" __global__ void matmul_bf16(const MatmulCuda c) { product<true>(c, blockIdx.z); }

#define FERRY_TENSOR_KERNEL(name, a, b, tile_m)                                              \
  extern "C" __global__ void __launch_bounds__(kTensorThreads, 2) name(const MatmulCuda c) { \
    tensor_product<a, b, tile_m>([&] { return c; }, blockIdx.z);                             \
  }
FERRY_TENSOR_KERNEL(matmul_tensor_kk, Lies::kAlongK, Lies::kAlongK, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_kr, Lies::kAlongK, Lies::kAlongRows, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_rr, Lies::kAlongRows, Lies::kAlongRows, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_any, Lies::kAnyhow, Lies::kAnyhow, kTensorM)
FERRY_TENSOR_KERNEL(matmul_tensor_few_rows, Lies::kAlongK, Lies::kAlongK, kTensorFewM)

}  // namespace ferry::ops
