// Scores with sixteen lanes for each token; then a thread for each token chooses, by the scan that
// the CPU's kernel does: upwards, replacing on "greater" only, so that ties go to the lower index.
// What was chosen so far is kept where it is wanted in the end.
#include "ops/cuda/device_math.h"
#include "ops/router/router_cuda.h"

namespace ferry::ops {

constexpr uint32_t kMinusInfinity = 0xFF800000u;

extern "C" __global__ void router_scores(const RouterCuda c) {
  // Tokens that are not there look at the last one, so that the whole warp stays together.
  const int64_t row = lanes_row(), t = row < c.tokens ? row : c.tokens - 1;
  const bool mine = row < c.tokens;
  const float* const logits = c.logits + t * c.logits_stride;
  float* const scores = c.scores + t * c.config.experts;
  const int experts = c.config.experts;
  if (c.config.sigmoid != 0) {
    for (int i = lane(); i < experts; i += kLanes)
      if (mine) scores[i] = sigmoid(logits[i]);
    return;
  }
  float most = __uint_as_float(kMinusInfinity);
  for (int i = lane(); i < experts; i += kLanes) most = most > logits[i] ? most : logits[i];
  __syncwarp();
#pragma unroll
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, most, width, kLanes);
    most = other > most ? other : most;
  }
  float sum = 0;
  for (int i = lane(); i < experts; i += kLanes) sum = sum + exp(logits[i] - most);
  __syncwarp();
  const float total = sum_lanes(sum);
  for (int i = lane(); i < experts; i += kLanes)
    if (mine) scores[i] = exp(logits[i] - most) / total;
}

/// Takes the place of the worst of `held` indices, descending by value(index), if it is better.
template <typename Value>
__device__ void offer(int32_t* held, int& count, int capacity, int32_t index, Value&& value) {
  const float its = value(index);
  int at = count;
  if (count < capacity) {
    ++count;
  } else {
    if (!(its > value(held[capacity - 1]))) return;
    at = capacity - 1;
  }
  for (; at > 0 && its > value(held[at - 1]); --at) held[at] = held[at - 1];
  held[at] = index;
}

__device__ inline float score_of(const float* scores, int32_t expert, const RouterChoice& c) {
  return 0 <= expert && expert < c.experts ? scores[expert] : 0.0f;
}

/// The sum of the chosen scores, as the weights are divided by it.
__device__ inline float denominator(const float* scores,
                                    const int32_t* experts,
                                    const RouterChoice& c) {
  float sum = 0;
  for (int j = 0; j < c.top_k; ++j) sum = sum + score_of(scores, experts[j], c);
  return sum + 1e-20f;
}

extern "C" __global__ void router_choice(const RouterCuda c) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= c.tokens) return;
  const RouterChoice& config = c.config;
  const float* const scores = c.scores + t * config.experts;
  const auto biased = [&](int32_t e) {
    return c.bias != nullptr ? scores[e] + c.bias[e] : scores[e];
  };
  const int32_t* experts = c.given + t * config.top_k;
  if (c.given == nullptr) {
    const int size = config.experts / config.groups;
    int32_t* const kept = c.kept + t * config.groups_kept;
    const bool all = config.groups_kept == config.groups;
    if (!all) {
      const auto group_score = [&](int32_t g) {
        float first = biased(g * size), second = __uint_as_float(kMinusInfinity);
        for (int e = g * size + 1; e < (g + 1) * size; ++e) {
          const float x = biased(e);
          if (x > first) {
            second = first;
            first = x;
          } else if (x > second) {
            second = x;
          }
        }
        return config.top2_sum != 0 ? first + second : first;
      };
      int count = 0;
      for (int g = 0; g < config.groups; ++g)
        offer(kept, count, config.groups_kept, g, group_score);
    }
    int32_t* const chosen = c.chosen + t * config.top_k;
    int count = 0;
    for (int g = 0; g < config.groups; ++g) {
      bool taken = all;
      for (int j = 0; !taken && j < config.groups_kept; ++j) taken = kept[j] == g;
      for (int e = g * size; taken && e < (g + 1) * size; ++e)
        offer(chosen, count, config.top_k, e, biased);
    }
    experts = chosen;
  }
  const float by = config.normalize != 0 ? denominator(scores, experts, config) : 1.0f;
  for (int j = 0; j < config.top_k; ++j)
    c.weights[t * config.top_k + j] = score_of(scores, experts[j], config) / by * config.scale;
}

/// Adds to d (gradients of scores) what the weights' gradients give: with n_j = s_j / sum,
/// d_s_j += scale / sum * (d_w_j - sum_i d_w_i n_i) if normalised, scale * d_w_j if not.
__device__ inline void weigh_backward(const float* scores,
                                      const int32_t* experts,
                                      const float* d_weights,
                                      float* d,
                                      const RouterChoice& c) {
  const float by = c.normalize != 0 ? denominator(scores, experts, c) : 1.0f;
  float mean = 0;
  if (c.normalize != 0)
    for (int j = 0; j < c.top_k; ++j)
      mean = mean + d_weights[j] * (score_of(scores, experts[j], c) / by);
  const float factor = c.scale / by;
  for (int j = 0; j < c.top_k; ++j)
    if (0 <= experts[j] && experts[j] < c.experts)
      d[experts[j]] = d[experts[j]] + factor * (d_weights[j] - mean);
}

/// Sixteen lanes for each token; one of them adds what the weights give.
extern "C" __global__ void router_gradient(const RouterBackwardCuda c) {
  const int64_t t = lanes_row();
  const bool mine = t < c.tokens;
  const int experts = mine ? c.config.experts : 0;
  const float* const scores = c.scores + (mine ? t * c.config.experts : 0);
  float* const d = c.d_logits + (mine ? t * c.config.experts : 0);
  for (int i = lane(); i < experts; i += kLanes)
    d[i] = c.d_scores != nullptr ? c.d_scores[t * c.config.experts + i] : 0.0f;
  __syncwarp();
  if (mine && lane() == 0 && c.d_weights != nullptr)
    weigh_backward(
        scores, c.experts + t * c.config.top_k, c.d_weights + t * c.config.top_k, d, c.config);
  __syncwarp();
  if (c.config.sigmoid != 0) {
    for (int i = lane(); i < experts; i += kLanes) d[i] = d[i] * scores[i] * (1.0f - scores[i]);
    return;
  }
  float dot = 0;
  for (int i = lane(); i - lane() < experts; i += kLanes)
    dot = i < experts ? __fmaf_rn(d[i], scores[i], dot) : __fmaf_rn(0.0f, 0.0f, dot);
  __syncwarp();
  const float mean = sum_lanes(dot);
  for (int i = lane(); i < experts; i += kLanes) d[i] = scores[i] * (d[i] - mean);
}

}  // namespace ferry::ops
