// Root-mean-square normalisation.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y = x / sqrt(mean(x², hidden) + eps) * weight.
///
/// Shapes    x [tokens, hidden], rows may be strided; weight [hidden]; returns [tokens, hidden].
/// Types     x f32 or bf16; weight f32 or bf16; accumulates in f32; returns x's type.
/// Gradient  d_x, d_weight (f32); keeps x and rstd, f32 [tokens]. y is made again from them for
///           whoever needs it (Tape::makes_again).
/// Order     the sum of squares: 16 lanes over hidden, then the fixed lane tree. d_weight: tokens
///           in order.
/// Errors    check: shapes, types, eps > 0.
/// Source    Zhang & Sennrich 2019, arXiv 1910.07467.
Tensor rms_norm(const Tensor& x, const Weight& weight, float eps);

}  // namespace ferry::ops
