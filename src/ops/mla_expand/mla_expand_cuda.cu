// Copies, a thread for each element; only d_k_pe needs arithmetic: heads ascending.
#include "ops/cuda/device_math.h"
#include "ops/mla_expand/mla_expand_cuda.h"

namespace ferry::ops {

template <typename T>
__device__ void copy(const MlaCopyCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    static_cast<T*>(c.to)[at[1]] = static_cast<const T*>(c.from)[at[0]];
  });
}

template <typename T>
__device__ void rotary(const MlaRotaryCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.tokens * c.rotary) return;
  const int64_t token = i / c.rotary, column = i % c.rotary;
  const T* const d_k = static_cast<const T*>(c.d_k) + token * c.token_stride + column;
  float sum = 0;
  for (int64_t h = 0; h < c.heads; ++h) sum = sum + load(d_k + h * c.head_stride);
  store(static_cast<T*>(c.d_k_pe) + token * c.out_stride + column, sum);
}

extern "C" __global__ void mla_copy_f32(const MlaCopyCuda c) { copy<float>(c); }
extern "C" __global__ void mla_copy_bf16(const MlaCopyCuda c) { copy<bf16_t>(c); }
extern "C" __global__ void mla_rotary_f32(const MlaRotaryCuda c) { rotary<float>(c); }
extern "C" __global__ void mla_rotary_bf16(const MlaRotaryCuda c) { rotary<bf16_t>(c); }

}  // namespace ferry::ops
