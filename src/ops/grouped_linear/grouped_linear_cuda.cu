// The experts' products above each other: how many rows each has stands in the device's memory, so
// the grid has blocks for all rows of all, and those beyond an expert's own end at once.
#include "ops/cuda/device_product.h"
#include "ops/cuda/device_tensor_product.h"
#include "ops/grouped_linear/grouped_linear_cuda.h"

namespace ferry::ops {

/// Read anew each time that it is asked for.
__device__ inline int64_t offset(const int32_t* at) {
  int32_t x;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(at)));
  return x;
}

/// The product of the block's expert.
__device__ __forceinline__ MatmulCuda of_expert(const GroupedMatmulCuda& c) {
  const int64_t expert = blockIdx.z;
  const int64_t begin = offset(c.offsets + expert), rows = offset(c.offsets + expert + 1) - begin;
  MatmulCuda p = c.product;
  const int64_t a_size = p.a_bf16 != 0 ? 2 : 4, b_size = p.b_bf16 != 0 ? 2 : 4,
                c_size = p.c_bf16 != 0 ? 2 : 4;
  const auto advance = [](const void* at, int64_t bytes) {
    return static_cast<const char*>(at) + bytes;
  };
  if (c.rows_are_k != 0) {
    p.k = rows;
    p.a = advance(p.a, begin * p.a_k * a_size);
    p.b = advance(p.b, begin * p.b_k * b_size);
    p.c = static_cast<char*>(p.c) + expert * p.c_batch * c_size;
  } else {
    p.m = rows;
    p.a = advance(p.a, begin * p.a_row * a_size);
    p.b = advance(p.b, expert * p.b_batch * b_size);
    p.c = static_cast<char*>(p.c) + begin * p.c_row * c_size;
  }
  return p;
}

/// Whether the product has no rows for the block; of one whose rows are summed over there are all.
__device__ __forceinline__ bool idle(const MatmulCuda& p, int tile_m) {
  return static_cast<int64_t>(blockIdx.x) * tile_m >= p.m;
}

template <bool bf16>
__device__ void grouped(const GroupedMatmulCuda& c) {
  const MatmulCuda p = of_expert(c);
  if (!idle(p, kMatmulTile)) product<bf16>(p, 0);
}

extern "C" __global__ void grouped_matmul_f32(const GroupedMatmulCuda c) { grouped<false>(c); }
extern "C" __global__ void grouped_matmul_bf16(const GroupedMatmulCuda c) { grouped<true>(c); }

template <Lies a, Lies b>
__device__ __forceinline__ void grouped_tensor(const GroupedMatmulCuda& c) {
  if (idle(of_expert(c), kTensorM)) return;
  tensor_product<a, b, kTensorM>([&] { return of_expert(c); }, 0);
}

#define FERRY_GROUPED_KERNEL(name, a, b)                          \
  extern "C" __global__ void __launch_bounds__(kTensorThreads, 2) \
      name(const GroupedMatmulCuda c) {                           \
    grouped_tensor<a, b>(c);                                      \
  }
FERRY_GROUPED_KERNEL(grouped_tensor_kk, Lies::kAlongK, Lies::kAlongK)
FERRY_GROUPED_KERNEL(grouped_tensor_kr, Lies::kAlongK, Lies::kAlongRows)
FERRY_GROUPED_KERNEL(grouped_tensor_rr, Lies::kAlongRows, Lies::kAlongRows)
FERRY_GROUPED_KERNEL(grouped_tensor_any, Lies::kAnyhow, Lies::kAnyhow)

}  // namespace ferry::ops
