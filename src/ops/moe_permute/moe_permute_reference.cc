// Expert by expert, a walk over all slots: quadratic, and plainly stable.
#include "ops/moe_permute/moe_permute_reference.h"

namespace ferry::ops {

ExpertPlanReference plan_experts_reference(const RefTensor& chosen, int64_t experts) {
  const int64_t slots = chosen.shape.count(), top_k = chosen.shape[1];
  ExpertPlanReference plan{RefTensor({experts + 1}), RefTensor(chosen.shape), RefTensor({slots})};
  for (double& row : plan.row_of_slot.values) row = -1;
  for (double& token : plan.token_of_row.values) token = -1;
  int64_t row = 0;
  for (int64_t e = 0; e < experts; ++e) {
    for (int64_t s = 0; s < slots; ++s) {
      if (chosen[s] != static_cast<double>(e)) continue;
      plan.row_of_slot[s] = static_cast<double>(row);
      const int64_t token = s / top_k;
      plan.token_of_row[row++] = static_cast<double>(token);
    }
    plan.offsets[e + 1] = static_cast<double>(row);
  }
  return plan;
}

template <class T>
RefArray<T> permute_reference(const RefArray<T>& x, const ExpertPlanReference& plan) {
  const int64_t hidden = x.shape[1];
  RefArray<T> y({plan.token_of_row.shape[0], hidden});
  for (int64_t r = 0; r < y.shape[0]; ++r) {
    const auto token = static_cast<int64_t>(plan.token_of_row[r]);
    for (int64_t i = 0; token >= 0 && i < hidden; ++i)
      y[r * hidden + i] = copied(x[token * hidden + i]);
  }
  return y;
}

template <class T>
RefArray<T> combine_reference(const RefArray<T>& x,
                              const RefArray<T>& weights,
                              const ExpertPlanReference& plan) {
  const int64_t hidden = x.shape[1], top_k = weights.shape[1];
  RefArray<T> y({weights.shape[0], hidden});
  for (int64_t s = 0; s < weights.shape.count(); ++s) {
    const auto row = static_cast<int64_t>(plan.row_of_slot[s]);
    for (int64_t i = 0; row >= 0 && i < hidden; ++i)
      y[s / top_k * hidden + i] += weights[s] * x[row * hidden + i];
  }
  return y;
}

template RefTensor permute_reference(const RefTensor&, const ExpertPlanReference&);
template RealTensor permute_reference(const RealTensor&, const ExpertPlanReference&);
template RefTensor combine_reference(const RefTensor&,
                                     const RefTensor&,
                                     const ExpertPlanReference&);
template RealTensor combine_reference(const RealTensor&,
                                      const RealTensor&,
                                      const ExpertPlanReference&);

}  // namespace ferry::ops
