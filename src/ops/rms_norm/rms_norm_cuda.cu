// Sixteen lanes for each row; the weight's gradient with a thread for each column, so that each
// sums tokens in order.
#include "ops/cuda/device_math.h"
#include "ops/rms_norm/rms_norm_cuda.h"

namespace ferry::ops {

/// A row's elements as its lanes see them: past its end there are zeros, so that no lane leaves
/// early.
template <typename F>
__device__ void for_lane(int64_t hidden, F&& f) {
  for (int64_t i = lane(); i - lane() < hidden; i += kLanes) f(i, i < hidden);
}

template <typename T>
__device__ void forward(const RmsNormCuda& c) {
  const int64_t row = lanes_row();
  const bool mine = row < c.tokens;  // a row that is not there has no elements
  const int64_t hidden = mine ? c.hidden : 0;
  const T* const x = static_cast<const T*>(c.x) + (mine ? row * c.x_stride : 0);
  float squares = 0;
  for_lane(hidden, [&](int64_t i, bool inside) {
    const float v = inside ? load(x + i) : 0.0f;
    squares = __fmaf_rn(v, v, squares);
  });
  const float mean = sum_lanes(squares) / static_cast<float>(c.hidden);
  const float r = 1.0f / sqrtf(mean + c.eps);
  if (!mine) return;
  if (lane() == 0) c.rstd[row] = r;
  T* const y = static_cast<T*>(c.y) + row * c.hidden;
  for (int64_t i = lane(); i < hidden; i += kLanes)
    store(y + i, load(x + i) * r * load(c.weight, c.weight_bf16 != 0, i));
}

// With g = d_y * w and n = x * rstd:  d_x = rstd * (g - n * mean(g * n)).
template <typename T>
__device__ void backward(const RmsNormBackwardCuda& c) {
  const int64_t row = lanes_row();
  const bool mine = row < c.tokens;
  const int64_t hidden = mine ? c.hidden : 0;
  const T* const x = static_cast<const T*>(c.x) + (mine ? row * c.x_stride : 0);
  const T* const d_y = static_cast<const T*>(c.d_y) + (mine ? row * c.d_y_stride : 0);
  const float r = mine ? c.rstd[row] : 0.0f;
  const auto gradient = [&](int64_t i) {
    return load(d_y + i) * load(c.weight, c.weight_bf16 != 0, i);
  };
  float dot = 0;
  for_lane(hidden, [&](int64_t i, bool inside) {
    dot = inside ? __fmaf_rn(gradient(i), load(x + i) * r, dot) : __fmaf_rn(0.0f, 0.0f, dot);
  });
  const float mean = 0.0f - sum_lanes(dot) / static_cast<float>(c.hidden);
  if (!mine) return;
  T* const d_x = static_cast<T*>(c.d_x) + row * c.hidden;
  for (int64_t i = lane(); i < hidden; i += kLanes)
    store(d_x + i, r * __fmaf_rn(load(x + i) * r, mean, gradient(i)));
}

template <typename T>
__device__ void weight_gradient(const RmsNormBackwardCuda& c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.hidden) return;
  float sum = 0;
  for (int64_t t = 0; t < c.tokens; ++t)
    sum = __fmaf_rn(load(static_cast<const T*>(c.d_y) + t * c.d_y_stride + i),
                    load(static_cast<const T*>(c.x) + t * c.x_stride + i) * c.rstd[t],
                    sum);
  c.d_weight[i] = sum;
}

extern "C" __global__ void rms_norm_f32(const RmsNormCuda c) { forward<float>(c); }
extern "C" __global__ void rms_norm_bf16(const RmsNormCuda c) { forward<bf16_t>(c); }
extern "C" __global__ void rms_norm_backward_f32(const RmsNormBackwardCuda c) {
  backward<float>(c);
}
extern "C" __global__ void rms_norm_backward_bf16(const RmsNormBackwardCuda c) {
  backward<bf16_t>(c);
}
extern "C" __global__ void rms_norm_weight_f32(const RmsNormBackwardCuda c) {
  weight_gradient<float>(c);
}
extern "C" __global__ void rms_norm_weight_bf16(const RmsNormBackwardCuda c) {
  weight_gradient<bf16_t>(c);
}

}  // namespace ferry::ops
