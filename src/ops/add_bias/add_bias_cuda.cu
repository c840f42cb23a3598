// A thread for each element; on the way back one for each column, so that each sums tokens in
// order.
#include "ops/add_bias/add_bias_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

template <typename Y>
__device__ void forward(const AddBiasCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    store(static_cast<Y*>(c.y) + at[2], c.x[at[0]] + c.bias[at[1]]);
  });
}

template <typename Y>
__device__ void backward(const AddBiasBackwardCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.columns) return;
  float sum = 0;
  for (int64_t t = 0; t < c.tokens; ++t)
    sum = sum + load(static_cast<const Y*>(c.d_y) + t * c.d_y_stride + i);
  c.d_bias[i] = sum;
}

extern "C" __global__ void add_bias_f32(const AddBiasCuda c) { forward<float>(c); }
extern "C" __global__ void add_bias_bf16(const AddBiasCuda c) { forward<bf16_t>(c); }
extern "C" __global__ void add_bias_backward_f32(const AddBiasBackwardCuda c) {
  backward<float>(c);
}
extern "C" __global__ void add_bias_backward_bf16(const AddBiasBackwardCuda c) {
  backward<bf16_t>(c);
}

}  // namespace ferry::ops
