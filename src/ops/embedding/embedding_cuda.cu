// A thread for each element; on the way back one for each column, so that each row of the gradient
// sums tokens in order without atomics.
#include "ops/cuda/device_math.h"
#include "ops/embedding/embedding_cuda.h"

namespace ferry::ops {

extern "C" __global__ void embedding_rows(const EmbeddingCuda c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.hidden) return;
  for (int64_t t = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; t < c.tokens;
       t += static_cast<int64_t>(gridDim.y) * blockDim.y) {
    const int64_t id = c.ids[t];
    const bool known = 0 <= id && id < c.vocab;
    const float x = known ? load(c.weight, c.weight_bf16 != 0, id * c.weight_stride + i) : 0.0f;
    store(c.y, c.y_bf16 != 0, t * c.hidden + i, x);
  }
}

extern "C" __global__ void embedding_gradient(const EmbeddingBackwardCuda c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.hidden) return;
  for (int64_t t = 0; t < c.tokens; ++t) {
    const int64_t id = c.ids[t];
    if (id < 0 || id >= c.vocab) continue;
    float& sum = c.d_weight[id * c.hidden + i];
    sum = sum + load(c.d_y, c.d_y_bf16 != 0, t * c.d_y_stride + i);
  }
}

}  // namespace ferry::ops
