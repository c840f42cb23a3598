// One token at a time: scores in lanes, then a scan that keeps the best in an ordered list.
// Scanning upwards and replacing on "greater" only gives ties to the lower index.
#include "ops/cpu/loops.h"
#include "ops/router/router_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr float kLaneNumber[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// The first n lanes of v, `rest` in the others.
F32x16 first_n(F32x16 v, int n, float rest) {
  return n == kLanes ? v
                     : where_less(load(kLaneNumber), splat(static_cast<float>(n)), v, splat(rest));
}

void softmax_row(const float* logits, float* scores, int experts) {
  F32x16 most = splat(-__builtin_inff());
  for_lanes(0, experts, [&](int64_t i, int n) {
    most = max(most, first_n(load_n(logits + i, n), n, -__builtin_inff()));
  });
  const F32x16 shift = splat(max_lanes(most));
  F32x16 sum = splat(0);
  for_lanes(0, experts, [&](int64_t i, int n) {
    const F32x16 e = exp(load_n(logits + i, n) - shift);
    sum = sum + first_n(e, n, 0.0f);
    store_n(scores + i, e, n);
  });
  const F32x16 total = splat(sum_lanes(sum));
  for_lanes(
      0, experts, [&](int64_t i, int n) { store_n(scores + i, load_n(scores + i, n) / total, n); });
}

void sigmoid_row(const float* logits, float* scores, int experts) {
  for_lanes(0, experts, [&](int64_t i, int n) {
    store_n(scores + i, sigmoid(load_n(logits + i, n)), n);
  });
}

/// The `capacity` largest of the values offered, descending. Whatever the values (NaN too), the
/// indices it holds are distinct ones that were offered.
class Best {
 public:
  explicit Best(int capacity) : capacity_(capacity) {}

  void offer(float value, int32_t index) {
    int at = count_;
    if (count_ < capacity_) {
      ++count_;
    } else {
      if (!(value > values_[capacity_ - 1])) return;
      at = capacity_ - 1;
    }
    for (; at > 0 && value > values_[at - 1]; --at) {
      values_[at] = values_[at - 1];
      indices_[at] = indices_[at - 1];
    }
    values_[at] = value;
    indices_[at] = index;
  }
  int count() const { return count_; }
  int32_t index(int place) const { return indices_[place]; }

 private:
  int capacity_, count_ = 0;
  float values_[kExpertsMax];
  int32_t indices_[kExpertsMax];
};

float group_score(const float* biased, int size, GroupScore kind) {
  float first = biased[0], second = -__builtin_inff();
  for (int i = 1; i < size; ++i) {
    if (biased[i] > first) {
      second = first;
      first = biased[i];
    } else if (biased[i] > second) {
      second = biased[i];
    }
  }
  return kind == GroupScore::kMax ? first : first + second;
}

void choose(const float* biased, int32_t* experts, const RouterConfig& c) {
  const int size = c.experts / c.groups;
  bool kept[kExpertsMax];
  for (int g = 0; g < c.groups; ++g) kept[g] = c.groups_kept == c.groups;
  if (c.groups_kept < c.groups) {
    Best groups(c.groups_kept);
    for (int g = 0; g < c.groups; ++g)
      groups.offer(group_score(biased + g * size, size, c.group_score), g);
    for (int j = 0; j < groups.count(); ++j) kept[groups.index(j)] = true;
  }
  Best best(c.top_k);
  for (int g = 0; g < c.groups; ++g)
    for (int e = g * size; kept[g] && e < (g + 1) * size; ++e) best.offer(biased[e], e);
  for (int j = 0; j < c.top_k; ++j) experts[j] = best.index(j);
}

bool exists(int32_t expert, const RouterConfig& c) { return 0 <= expert && expert < c.experts; }

float score_of(const float* scores, int32_t expert, const RouterConfig& c) {
  return exists(expert, c) ? scores[expert] : 0.0f;
}

/// The sum of the chosen scores, as the weights are divided by it.
float denominator(const float* scores, const int32_t* experts, const RouterConfig& c) {
  float sum = 0;
  for (int j = 0; j < c.top_k; ++j) sum += score_of(scores, experts[j], c);
  return sum + 1e-20f;
}

void weigh(const float* scores, const int32_t* experts, float* weights, const RouterConfig& c) {
  const float by = c.normalize ? denominator(scores, experts, c) : 1.0f;
  for (int j = 0; j < c.top_k; ++j) weights[j] = score_of(scores, experts[j], c) / by * c.scale;
}

/// Adds to d (gradients of scores) what the weights' gradients give: with n_j = s_j / sum,
/// d_s_j += scale / sum * (d_w_j - sum_i d_w_i n_i) if normalised, scale * d_w_j if not.
void weigh_backward(const float* scores,
                    const int32_t* experts,
                    const float* d_weights,
                    float* d,
                    const RouterConfig& c) {
  const float by = c.normalize ? denominator(scores, experts, c) : 1.0f;
  float mean = 0;
  if (c.normalize)
    for (int j = 0; j < c.top_k; ++j) mean += d_weights[j] * (score_of(scores, experts[j], c) / by);
  const float factor = c.scale / by;
  for (int j = 0; j < c.top_k; ++j)
    if (exists(experts[j], c)) d[experts[j]] += factor * (d_weights[j] - mean);
}

/// In place: gradients of scores become gradients of logits.
void scores_backward(const float* scores, float* d, const RouterConfig& c) {
  if (c.sigmoid) {
    for_lanes(0, c.experts, [&](int64_t i, int n) {
      const F32x16 s = load_n(scores + i, n);
      store_n(d + i, load_n(d + i, n) * s * (splat(1.0f) - s), n);
    });
    return;
  }
  F32x16 dot = splat(0);
  for_lanes(0, c.experts, [&](int64_t i, int n) {
    dot = fma(load_n(d + i, n), load_n(scores + i, n), dot);
  });
  const F32x16 mean = splat(sum_lanes(dot));
  for_lanes(0, c.experts, [&](int64_t i, int n) {
    store_n(d + i, load_n(scores + i, n) * (load_n(d + i, n) - mean), n);
  });
}

}  // namespace

void router_forward(const Plan&, const RouterArgs& a, void*, Stream&) {
  const RouterConfig& c = a.config;
  parallel_rows(a.logits.shape[0], 8 * c.experts, [&](int64_t t) {
    const float* logits = a.logits.as<float>() + t * a.logits.stride[0];
    float* scores = a.scores.as<float>() + t * c.experts;
    float* weights = a.weights.as<float>() + t * c.top_k;
    c.sigmoid ? sigmoid_row(logits, scores, c.experts) : softmax_row(logits, scores, c.experts);
    if (a.given.given()) return weigh(scores, a.given.as<int32_t>() + t * c.top_k, weights, c);
    int32_t* experts = a.experts.as<int32_t>() + t * c.top_k;
    if (a.bias.given()) {
      float biased[kExpertsMax];
      const float* bias = a.bias.as<float>();
      for_lanes(0, c.experts, [&](int64_t i, int n) {
        store_n(biased + i, load_n(scores + i, n) + load_n(bias + i, n), n);
      });
      choose(biased, experts, c);
    } else {
      choose(scores, experts, c);
    }
    weigh(scores, experts, weights, c);
  });
}

void router_backward(const Plan&, const RouterBackwardArgs& a, void*, Stream&) {
  const RouterConfig& c = a.config;
  parallel_rows(a.scores.shape[0], 4 * c.experts, [&](int64_t t) {
    const float* scores = a.scores.as<float>() + t * c.experts;
    float* d = a.d_logits.as<float>() + t * c.experts;
    for_lanes(0, c.experts, [&](int64_t i, int n) {
      store_n(d + i,
              a.d_scores.given() ? load_n(a.d_scores.as<float>() + t * c.experts + i, n) : splat(0),
              n);
    });
    if (a.d_weights.given())
      weigh_backward(scores,
                     a.experts.as<int32_t>() + t * c.top_k,
                     a.d_weights.as<float>() + t * c.top_k,
                     d,
                     c);
    scores_backward(scores, d, c);
  });
}

}  // namespace ferry::ops::FERRY_TIER
