// plan_experts, permute and combine in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

struct ExpertPlanReference {
  RefTensor offsets, row_of_slot, token_of_row;
};

/// chosen [tokens, top_k]; see moe_permute.h for all three.
ExpertPlanReference plan_experts_reference(const RefTensor& chosen, int64_t experts);
template <class T>
RefArray<T> permute_reference(const RefArray<T>& x, const ExpertPlanReference& plan);
template <class T>
RefArray<T> combine_reference(const RefArray<T>& x,
                              const RefArray<T>& weights,
                              const ExpertPlanReference& plan);

}  // namespace ferry::ops
