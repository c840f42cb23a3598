// cross_entropy in float64, for judging kernels.
#include "ops/cross_entropy/cross_entropy_reference.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/matmul/matmul_reference.h"

namespace ferry::ops {
namespace {

struct LogSum {
  double maximum, log_sum;  // log Σ exp(x - maximum)
};

LogSum log_sum_exp(const double* x, int64_t n) {
  const double m = *std::max_element(x, x + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += math::exp(x[i] - m);
  return {m, math::log(sum)};
}

}  // namespace

template <class T>
std::vector<RefArray<T>> cross_entropy_reference(const RefArray<T>& hidden,
                                                 const RefArray<T>& head,
                                                 const RefTensor& labels,
                                                 double scale,
                                                 const RefTensor& weights) {
  using math::exp, math::log;
  const int64_t tokens = hidden.shape[0], vocab = head.shape[0];
  // d_hidden is kept before it is multiplied by d_loss, and d_logits before the products.
  RefArray<T> kept = hidden;
  for (T& x : kept.values) gradient_stored(x);
  const RefArray<T> logits = matmul_reference(kept, head, false, true);
  for (const T& x : logits.values) gradient_stored(x);
  RefArray<T> loss({1}), token_losses({tokens});
  for (int64_t t = 0; t < tokens; ++t) {
    const auto label = static_cast<int64_t>(labels[t]);
    if (label == -1) continue;
    const T* x = logits.values.data() + t * vocab;
    double top = -INFINITY;
    for (int64_t i = 0; i < vocab; ++i) top = std::max(top, value_of(x[i]));
    T sum = T(0.0);
    for (int64_t i = 0; i < vocab; ++i) {
      const T apart = x[i] - T(top);  // or less the logarithm of the sum, on the way back
      sum += exp(uncertain(apart, 0x1p-24 * (2 * std::abs(top) + 4)));
    }
    token_losses[t] = log(sum) + T(top) - x[label];
    const double weight = weights.values.empty() ? 1 : weights[t];
    loss[0] += T(scale * weight) * token_losses[t];
  }
  return {loss, token_losses};
}

template std::vector<RefTensor> cross_entropy_reference(
    const RefTensor&, const RefTensor&, const RefTensor&, double, const RefTensor&);
template std::vector<RealTensor> cross_entropy_reference(
    const RealTensor&, const RealTensor&, const RefTensor&, double, const RefTensor&);

std::vector<double> cross_entropy_token_bounds(const RefTensor& hidden,
                                               const RefTensor& head,
                                               const RefTensor& labels,
                                               int64_t roundings) {
  constexpr double u = 0x1p-24;
  const int64_t tokens = hidden.shape[0], vocab = head.shape[0];
  const RefTensor logits = matmul_reference(hidden, head, false, true);
  const RefTensor magnitudes = matmul_reference(absolute(hidden), absolute(head), false, true);
  std::vector<double> bounds(static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t) {
    const auto label = static_cast<int64_t>(labels[t]);
    if (label == -1) continue;
    const double* x = logits.values.data() + t * vocab;
    const double* magnitude = magnitudes.values.data() + t * vocab;
    const LogSum l = log_sum_exp(x, vocab);
    // A logit's error moves the loss by at most twice as much. The argument of exp is rounded once,
    // exp within 4 u, then a tile's lane sum, its tree and the tiles: relative errors of the sum.
    const double logit =
        static_cast<double>(roundings) * u * *std::max_element(magnitude, magnitude + vocab);
    double argument = 0;
    for (int64_t i = 0; i < vocab; ++i)
      argument = std::max(argument, std::abs(x[i] - l.maximum) * math::exp(x[i] - l.maximum));
    const double sums = static_cast<double>(std::min(vocab, kVocabTile)) / 16 + 4 +
                        static_cast<double>(vocab) / kVocabTile;
    const double gap = l.maximum - x[label];
    bounds[static_cast<size_t>(t)] =
        1.01 * (2 * logit + u * (argument * static_cast<double>(vocab) + 4 + sums) +
                u * (4 * l.log_sum + 2) + u * (gap + l.log_sum + gap)) +
        kLeastNormal;
  }
  return bounds;
}

}  // namespace ferry::ops
