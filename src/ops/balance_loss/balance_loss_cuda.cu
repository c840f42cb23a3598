// Tokens' sums with sixteen lanes each; then a thread for each expert of each document, which adds
// its tokens in order; then documents' sums with sixteen lanes each, and one thread that adds them.
#include "ops/balance_loss/balance_loss_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

constexpr float kTiny = 1e-20f;  // sigmoid scores may all be zero

/// In each of sixteen lanes; of rows that are not there n is 0. The whole warp must be here.
__device__ inline float sum_of(const float* x, int64_t n) {
  float sum = 0;
  for (int64_t i = lane(); i < n; i += kLanes) sum = sum + x[i];
  __syncwarp();
  return sum_lanes(sum);
}

__device__ inline float dot_of(const float* a, const float* b, int64_t n) {
  float sum = 0;
  for (int64_t i = lane(); i < n; i += kLanes) sum = __fmaf_rn(a[i], b[i], sum);
  __syncwarp();
  return sum_lanes(sum);
}

/// One thread.
extern "C" __global__ void find_documents(const BalanceLossCuda c) {
  int32_t documents = 0;
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (c.position[t] == 0) c.begin[documents++] = static_cast<int32_t>(t);
    c.document[t] = documents - 1;
  }
  c.begin[documents] = static_cast<int32_t>(c.tokens);
}

extern "C" __global__ void token_sums(const BalanceLossCuda c) {
  const int64_t t = lanes_row();
  const bool mine = t < c.tokens;
  const float sum = sum_of(c.scores + (mine ? t * c.experts : 0), mine ? c.experts : 0);
  if (mine && lane() == 0) c.sums[t] = sum + kTiny;
}

extern "C" __global__ void document_shares(const BalanceLossCuda c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.documents * c.experts) return;
  const int64_t d = i / c.experts, expert = i % c.experts;
  const int64_t begin = c.begin[d], end = c.begin[d + 1];
  int32_t count = 0;
  for (int64_t s = begin * c.top_k; s < end * c.top_k; ++s) count += c.chosen[s] == expert ? 1 : 0;
  float mean = 0;
  for (int64_t t = begin; t < end; ++t) mean = mean + c.scores[t * c.experts + expert] / c.sums[t];
  const float length = static_cast<float>(end - begin);
  const float even = static_cast<float>(c.experts) / (static_cast<float>(c.top_k) * length);
  c.share[i] = static_cast<float>(count) * even;
  c.means[i] = mean / length;
}

extern "C" __global__ void document_losses(const BalanceLossCuda c) {
  const int64_t d = lanes_row();
  const bool mine = d < c.documents;
  const int64_t at = mine ? d * c.experts : 0;
  const float loss = dot_of(c.share + at, c.means + at, mine ? c.experts : 0);
  if (mine && lane() == 0) c.losses[d] = loss;
}

/// One thread.
extern "C" __global__ void total_balance_loss(const BalanceLossCuda c) {
  float sum = 0;
  for (int64_t d = 0; d < c.documents; ++d) sum = sum + c.losses[d];
  *c.loss = sum * (c.alpha / static_cast<float>(c.documents));
}

// With S = sum_j s_j:  d_s_i = d_loss alpha / (documents T) * (f_i - sum_j f_j s_j / S) / S.
extern "C" __global__ void balance_loss_gradient(const BalanceLossBackwardCuda c) {
  const int64_t t = lanes_row();
  const bool mine = t < c.tokens;
  const int64_t experts = mine ? c.experts : 0, d = mine ? c.document[t] : 0;
  const float* const scores = c.scores + (mine ? t * c.experts : 0);
  const float* const share = c.share + d * c.experts;
  const float sum = sum_of(scores, experts) + kTiny;
  const float mean = dot_of(share, scores, experts) / sum;
  if (!mine) return;
  const float factor = *c.d_loss * (c.alpha / static_cast<float>(c.documents));
  const float outer = factor / static_cast<float>(c.begin[d + 1] - c.begin[d]) / sum;
  for (int64_t i = lane(); i < experts; i += kLanes)
    c.d_scores[t * c.experts + i] = outer * (share[i] - mean);
}

extern "C" __global__ void expert_counts(const ExpertCountsCuda c) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= c.experts) return;
  int32_t count = c.counts[e];
  for (int64_t s = 0; s < c.slots; ++s) count += c.chosen[s] == e ? 1 : 0;
  c.counts[e] = count;
}

extern "C" __global__ void bias_update(const BiasUpdateCuda c) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= c.experts) return;
  int64_t sum = 0;
  for (int64_t i = 0; i < c.experts; ++i) sum += c.counts[i];
  const int64_t count = c.counts[e] * c.experts;  // against the sum: the mean times experts
  if (count < sum)
    c.bias[e] = c.bias[e] + c.gamma;
  else if (count > sum)
    c.bias[e] = c.bias[e] - c.gamma;
}

}  // namespace ferry::ops
