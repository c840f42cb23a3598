// The paper's sums, document by document.
#include "ops/balance_loss/balance_loss_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> balance_loss_reference(const RefArray<T>& scores,
                                   const RefTensor& experts,
                                   std::span<const int32_t> lengths,
                                   double alpha) {
  const int64_t e = scores.shape[1], k = experts.shape[1];
  RefArray<T> loss({1});
  int64_t begin = 0;
  for (const int32_t length : lengths) {
    std::vector<T> sums;
    for (int64_t t = begin; t < begin + length; ++t) {
      T sum = T(0.0);
      for (int64_t j = 0; j < e; ++j) sum += scores[t * e + j];
      sums.push_back(sum + T(1e-20));
    }
    for (int64_t i = 0; i < e; ++i) {
      double f = 0;
      T p = T(0.0);
      for (int64_t t = begin; t < begin + length; ++t) {
        for (int64_t j = 0; j < k; ++j) f += experts[t * k + j] == static_cast<double>(i) ? 1 : 0;
        p += scores[t * e + i] / sums[static_cast<size_t>(t - begin)];
      }
      loss[0] += T(f * static_cast<double>(e) / static_cast<double>(k * length) / length) * p;
    }
    begin += length;
  }
  loss[0] *= T(alpha / static_cast<double>(lengths.size()));
  return loss;
}

template RefTensor balance_loss_reference(const RefTensor&,
                                          const RefTensor&,
                                          std::span<const int32_t>,
                                          double);
template RealTensor balance_loss_reference(const RealTensor&,
                                           const RefTensor&,
                                           std::span<const int32_t>,
                                           double);

RefTensor expert_counts_reference(const RefTensor& chosen, int64_t experts) {
  RefTensor counts({experts});
  for (const double e : chosen.values)
    if (0 <= e && e < static_cast<double>(experts)) counts[static_cast<int64_t>(e)] += 1;
  return counts;
}

RefTensor bias_update_reference(const RefTensor& bias, const RefTensor& counts, double gamma) {
  const int64_t experts = counts.shape[0];
  double sum = 0;
  for (const double c : counts.values) sum += c;
  RefTensor next = bias;
  for (int64_t i = 0; i < experts; ++i) {
    const double below = sum - static_cast<double>(experts) * counts[i];
    next[i] += below > 0 ? gamma : below < 0 ? -gamma : 0;
  }
  return next;
}

}  // namespace ferry::ops
