// Documents in parallel forward, tokens in parallel backward.
#include "ops/balance_loss/balance_loss_kernels.h"
#include "ops/cpu/loops.h"
#include "ops/router/router_config.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr float kTiny = 1e-20f;  // sigmoid scores may all be zero

float sum_of(const float* values, int64_t n) {
  F32x16 sum = splat(0);
  for_lanes(0, n, [&](int64_t i, int lanes) { sum = sum + load_n(values + i, lanes); });
  return sum_lanes(sum);
}

float dot_of(const float* a, const float* b, int64_t n) {
  F32x16 sum = splat(0);
  for_lanes(0, n, [&](int64_t i, int lanes) {
    sum = fma(load_n(a + i, lanes), load_n(b + i, lanes), sum);
  });
  return sum_lanes(sum);
}

void find_documents(const BalanceLossArgs& a) {
  const int64_t tokens = a.scores.shape[0];
  int32_t documents = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    if (a.position.as<int32_t>()[t] == 0)
      a.begin.as<int32_t>()[documents++] = static_cast<int32_t>(t);
    a.document.as<int32_t>()[t] = documents - 1;
  }
  a.begin.as<int32_t>()[documents] = static_cast<int32_t>(tokens);
}

/// Writes the document's f into `share` and returns sum_i f_i P_i.
float document_loss(const BalanceLossArgs& a, int64_t begin, int64_t end, float* share) {
  const int64_t experts = a.scores.shape[1], top_k = a.experts.shape[1];
  const auto length = static_cast<float>(end - begin);
  int32_t counts[kExpertsMax] = {};
  float mean[kExpertsMax] = {};
  const int32_t* chosen = a.experts.as<int32_t>();
  for (int64_t s = begin * top_k; s < end * top_k; ++s)
    if (0 <= chosen[s] && chosen[s] < experts) ++counts[chosen[s]];
  for (int64_t t = begin; t < end; ++t) {
    const float* scores = a.scores.as<float>() + t * experts;
    const F32x16 sum = splat(sum_of(scores, experts) + kTiny);
    for_lanes(0, experts, [&](int64_t i, int n) {
      store_n(mean + i, load_n(mean + i, n) + load_n(scores + i, n) / sum, n);
    });
  }
  const float even = static_cast<float>(experts) / (static_cast<float>(top_k) * length);
  for (int64_t i = 0; i < experts; ++i) {
    share[i] = static_cast<float>(counts[i]) * even;
    mean[i] = mean[i] / length;
  }
  return dot_of(share, mean, experts);
}

}  // namespace

void balance_loss_forward(const Plan&, const BalanceLossArgs& a, void* workspace, Stream&) {
  const int64_t documents = a.share.shape[0], experts = a.scores.shape[1];
  auto* losses = static_cast<float*>(workspace);
  find_documents(a);
  cpu_pool().parallel_for(documents, [&](int64_t d, int) {
    const int32_t* begin = a.begin.as<int32_t>() + d;
    losses[d] = document_loss(a, begin[0], begin[1], a.share.as<float>() + d * experts);
  });
  float sum = 0;
  for (int64_t d = 0; d < documents; ++d) sum += losses[d];
  *a.loss.as<float>() = sum * (a.alpha / static_cast<float>(documents));
}

// With S = sum_j s_j:  d_s_i = d_loss alpha / (documents T) * (f_i - sum_j f_j s_j / S) / S.
void balance_loss_backward(const Plan&, const BalanceLossBackwardArgs& a, void*, Stream&) {
  const int64_t documents = a.share.shape[0], experts = a.scores.shape[1];
  const float factor = *a.d_loss.as<float>() * (a.alpha / static_cast<float>(documents));
  parallel_rows(a.scores.shape[0], 4 * experts, [&](int64_t t) {
    const int32_t d = a.document.as<int32_t>()[t];
    const int32_t* begin = a.begin.as<int32_t>() + d;
    const float* scores = a.scores.as<float>() + t * experts;
    const float* share = a.share.as<float>() + d * experts;
    const float sum = sum_of(scores, experts) + kTiny;
    const F32x16 mean = splat(dot_of(share, scores, experts) / sum);
    const F32x16 outer = splat(factor / static_cast<float>(begin[1] - begin[0]) / sum);
    for_lanes(0, experts, [&](int64_t i, int n) {
      store_n(a.d_scores.as<float>() + t * experts + i, outer * (load_n(share + i, n) - mean), n);
    });
  });
}

void expert_counts(const Plan&, const ExpertCountsArgs& a, void*, Stream&) {
  const int64_t slots = a.chosen.count(), experts = a.counts.shape[0];
  for (int64_t s = 0; s < slots; ++s) {
    const int32_t e = a.chosen.as<int32_t>()[s];
    if (0 <= e && e < experts) ++a.counts.as<int32_t>()[e];
  }
}

void bias_update(const Plan&, const BiasUpdateArgs& a, void*, Stream&) {
  const int64_t experts = a.counts.shape[0];
  int64_t sum = 0;
  for (int64_t i = 0; i < experts; ++i) sum += a.counts.as<int32_t>()[i];
  for (int64_t i = 0; i < experts; ++i) {
    const int64_t count =
        a.counts.as<int32_t>()[i] * experts;  // against the sum: the mean times experts
    float& b = a.bias.as<float>()[i];
    if (count < sum)
      b += a.gamma;
    else if (count > sum)
      b -= a.gamma;
  }
}

}  // namespace ferry::ops::FERRY_TIER
