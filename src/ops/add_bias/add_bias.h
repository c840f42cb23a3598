// A bias added to every row.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y[t] = x[t] + bias. Upon a product that linear() leaves in f32, so that product and bias are
/// rounded once.
///
/// Shapes    x [tokens, columns], contiguous; bias [columns]; returns [tokens, columns].
/// Types     x and bias f32; y f32 or bf16; computed in f32, rounded once.
/// Gradient  d_x (f32: d_y as it is), d_bias (f32); keeps nothing.
/// Order     d_bias: tokens in order, one accumulator for each column.
/// Errors    check: shapes, types.
Tensor add_bias(const Tensor& x, const Weight& bias, DType out);

}  // namespace ferry::ops
