// What keeps the experts of a layer evenly used: the sequence-wise balance loss, the counts of
// tokens per expert and the selection bias that is moved by them.
#pragma once

#include "ops/router/router.h"
#include "ops/segments.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// alpha * the mean over documents, each counting alike whatever its length, of sum_i f_i P_i.
/// In a document of T tokens: f_i = experts / (top_k T) * how many of them chose expert i, a
/// constant for the gradient; P_i = the mean over its tokens of s_i / (sum_j s_j + 1e-20).
///
/// Shapes    routing of [tokens]; documents [tokens], each whole: positions start at 0; returns
///           [1].
/// Types     f32. Ids outside [0, experts) are not counted.
/// Gradient  d_scores; keeps f, f32 [documents, experts].
/// Order     sum_j s_j and sum_i f_i P_i: 16 lanes over experts, then the fixed lane tree; P_i:
///           tokens in order; documents in order.
/// Errors    check: shapes, types, at least one token, a first position that is not 0.
/// Source    DeepSeek-V3, arXiv 2412.19437, eq. 17-20 (one sequence there is one document here).
Tensor balance_loss(const Routing& routing, const Segments& documents, float alpha);

/// How many slots chose each expert: i32 [experts]. Exact; ids outside [0, experts) are not
/// counted.
Tensor expert_counts(const Tensor& chosen, int experts);

/// Adds the counts of `chosen` (i32, any shape) to `counts` (i32 [experts]), in place: for a batch
/// that comes in several micro-batches.
void add_expert_counts(const Tensor& chosen, const Tensor& counts);

/// bias_i += gamma * sign(mean(counts) - counts_i), once per step with the global batch's counts.
/// The comparison is exact (in integers). The changes are not centred, as torchtitan's are.
///
/// Shapes    bias [experts]; counts [experts].
/// Types     bias f32; counts i32.
/// Errors    check: shapes, types.
void bias_update(Weight& bias, const Tensor& counts, float gamma);

}  // namespace ferry::ops
