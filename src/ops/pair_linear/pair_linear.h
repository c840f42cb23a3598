// The linear map of a weight that is stored as panels of pairs of bf16 numbers (tensor/pair_panels.h),
// and its rows. linear, grouped_linear, embedding and weight_values come here by themselves where a
// weight is stored so.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// Whether weights of models that answer in `compute` on this device are best stored so.
bool pairs_wanted(const Device& device, DType compute);

/// y = x wᵀ. With `offsets`, rows [offsets[e], offsets[e + 1]) meet matrix e of a stack.
///
/// Shapes    x [tokens, inputs], rows may be strided; w stored as pairs of [outputs, inputs] or
///           [experts, outputs, inputs]; offsets i32 [experts + 1] on the device, or not defined.
/// Types     x bf16; returns `out`, f32 or bf16, rounded once.
/// Gradient  none.
/// Order     ops/cpu/gemm.h: the bits that linear and grouped_linear give of the same numbers.
/// Errors    check: shapes, types, a tape that records.
Tensor pair_linear(const Tensor& x, const Weight& w, const Tensor& offsets, DType out);

/// Rows of one matrix: y[t] = w[ids[t]], zeros for an id that it does not have; the numbers themselves.
///
/// Shapes    ids [tokens]; w stored as pairs of [rows, columns]; returns [tokens, columns].
/// Types     ids i32; returns `out`, f32 or bf16.
/// Gradient  none.
/// Errors    check: shapes, types, a tape that records.
Tensor pair_rows(const Tensor& ids, const Weight& w, DType out);

/// All of them, in the weight's shape.
Tensor pair_values(const Weight& w, DType out);

}  // namespace ferry::ops
