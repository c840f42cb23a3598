// Sixteen lanes for each token: its loss, and the gradient of its logits.
#include "ops/cross_entropy/cross_entropy_cuda.h"
#include "ops/cuda/device_log_sum_exp.h"

namespace ferry::ops {

template <typename T>
__device__ void token_losses(const TokenLossesCuda& c) {
  // Rows that are not there look at the last one, so that the whole warp stays together, and write
  // nothing.
  const int64_t row = lanes_row();
  const bool mine = row < c.rows;
  const int64_t t = mine ? row : c.rows - 1;
  const float* const x = c.logits + t * c.stride;
  T* const d = static_cast<T*>(c.d_logits) + t * c.stride;
  const int32_t label = c.labels[t];
  const bool known = label >= 0 && label < c.vocab;
  const float m = row_max(x, c.vocab);
  const float at_label = known ? x[label] : 0.0f;
  const float sum = sum_exp(
      c.vocab, [&](int64_t i) { return x[i] - m; }, [](int64_t, float) {});
  const float log_sum = log(sum);
  const float none = label == -1 ? 0.0f : __uint_as_float(0x7FFFFFFFu);
  if (mine && lane() == 0) c.losses[t] = known ? log_sum + (m - at_label) : none;
  if (!mine || c.d_logits == nullptr) return;
  const float scale = c.weights != nullptr ? c.scale * c.weights[t] : c.scale;
  const float r = scale / sum;
  for (int64_t i = lane(); i < c.vocab; i += kLanes) {
    const float e = exp(x[i] - m) * r;
    store(d + i, !known ? none : i == label ? e - scale : e);
  }
}

extern "C" __global__ void token_losses_f32(const TokenLossesCuda c) { token_losses<float>(c); }
extern "C" __global__ void token_losses_bf16(const TokenLossesCuda c) { token_losses<bf16_t>(c); }

/// One warp.
extern "C" __global__ void mean_loss(const LossCuda c) {
  float sum = 0;
  for (int64_t t = lane(); t < c.tokens; t += kLanes)
    sum = sum + (c.weights != nullptr ? c.losses[t] * c.weights[t] : c.losses[t]);
  __syncwarp();
  sum = sum_lanes(sum);
  if (threadIdx.x == 0) *c.loss = c.scale * sum;
}

template <typename T>
__device__ void loss_gradient(const LossGradientCuda& c) {
  const float factor = *c.d_loss;
  for_elements(c.runs, [&](const int64_t* at) {
    T* const x = static_cast<T*>(c.gradient) + at[0];
    store(x, load(x) * factor);
  });
}

extern "C" __global__ void loss_gradient_f32(const LossGradientCuda c) { loss_gradient<float>(c); }
extern "C" __global__ void loss_gradient_bf16(const LossGradientCuda c) {
  loss_gradient<bf16_t>(c);
}

}  // namespace ferry::ops
