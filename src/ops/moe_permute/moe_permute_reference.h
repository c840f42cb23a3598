// plan_experts, permute and combine in float64, for judging kernels.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

struct ExpertPlanReference {
  RefTensor offsets, row_of_slot, token_of_row;
};

/// chosen [tokens, top_k]; see moe_permute.h for all three.
ExpertPlanReference plan_experts_reference(const RefTensor& chosen, int64_t experts);
RefTensor permute_reference(const RefTensor& x, const ExpertPlanReference& plan);
RefTensor combine_reference(const RefTensor& x,
                            const RefTensor& weights,
                            const ExpertPlanReference& plan);

}  // namespace ferry::ops
