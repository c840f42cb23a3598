// A thread for each element: those of a pair both read the two.
#include "ops/cuda/device_math.h"
#include "ops/rope/rope_cuda.h"

namespace ferry::ops {

template <typename T>
__device__ void rotate(const RopeCuda& c) {
  const int64_t d = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (d >= c.depth) return;
  for (int64_t row = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; row < c.rows;
       row += static_cast<int64_t>(gridDim.y) * blockDim.y) {
    const int64_t token = row / c.heads, head = row % c.heads;
    const T* const x = static_cast<const T*>(c.x) + token * c.x_stride[0] + head * c.x_stride[1];
    T* const y = static_cast<T*>(c.y) + token * c.y_stride[0] + head * c.y_stride[1];
    const int64_t at = d - c.begin;
    if (at < 0 || at >= 2 * c.pairs) {
      y[d] = x[d];
      continue;
    }
    const bool second = c.interleaved ? at % 2 == 1 : at >= c.pairs;
    const int64_t pair = c.interleaved ? at / 2 : second ? at - c.pairs : at;
    const int64_t step = c.interleaved ? 1 : c.pairs;
    const float a = load(x + (second ? d - step : d)), b = load(x + (second ? d : d + step));
    const int64_t angle = static_cast<int64_t>(c.position[token]) * c.pairs + pair;
    const float cos = c.cos[angle], sin = c.sin[angle];
    const float turned = second ? (c.inverse ? b * cos - a * sin : b * cos + a * sin)
                                : (c.inverse ? a * cos + b * sin : a * cos - b * sin);
    store(y + d, turned);
  }
}

extern "C" __global__ void rope_f32(const RopeCuda c) { rotate<float>(c); }
extern "C" __global__ void rope_bf16(const RopeCuda c) { rotate<bf16_t>(c); }

}  // namespace ferry::ops
