// Tokens to their experts and back: rows are sorted by expert, so that grouped linears see each
// expert's tokens together, and the experts' answers are summed per token afterwards.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// Which row of the sorted tensor belongs to which token. A slot is (token, place in its top k).
struct ExpertPlan {
  Tensor offsets;       // i32 [experts + 1]: rows [offsets[e], offsets[e + 1]) are expert e's
  Tensor row_of_slot;   // i32 [tokens, top_k]; -1: the slot's expert is not one of these
  Tensor token_of_row;  // i32 [tokens * top_k]; -1 in the rows from offsets[experts] on
};

/// Sorts slots by expert, stably: an expert's rows are in token order. Nothing visits the host. A
/// slot whose id is outside [0, experts) has no row: it gives and receives nothing.
///
/// Shapes    chosen [tokens, top_k].
/// Types     i32.
/// Gradient  none.
/// Errors    check: shapes, types.
ExpertPlan plan_experts(const Tensor& chosen, int experts);

/// y[row] = x[token_of_row[row]]; zeros in rows without a token.
///
/// Shapes    x [tokens, hidden], rows may be strided; returns [tokens * top_k, hidden].
/// Types     f32 or bf16.
/// Gradient  d_x[t] = the sum of d_y over the token's slots; keeps the plan. y is made again
///           for whoever needs it (Tape::makes_again).
/// Order     d_x: slots in top_k order, in f32, rounded once.
/// Errors    check: shapes, types.
Tensor permute(const Tensor& x, const ExpertPlan& plan);

/// y_t = sum_j weights[t, j] * x[row_of_slot[t, j]].
///
/// Shapes    x [tokens * top_k, hidden], rows may be strided; weights [tokens, top_k]; returns
///           [tokens, hidden].
/// Types     x f32 or bf16; weights f32; returns x's type.
/// Gradient  d_x, d_weights; keeps x and the weights.
/// Order     y: slots in top_k order, fma from +0 in f32, rounded once. d_weights: 16 lanes over
///           hidden, then the fixed lane tree.
/// Errors    check: shapes, types.
Tensor combine(const Tensor& x, const Tensor& weights, const ExpertPlan& plan);

}  // namespace ferry::ops
