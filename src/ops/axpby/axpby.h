// A weighted sum in place: momentum, averages, the combinations of Newton-Schulz.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = a x + b y, in place, never recorded. With b = 0, y is not read (it may be uninitialised).
///
/// Shapes    x and y alike, any rank; both may be strided views.
/// Types     f32 or bf16, not necessarily alike; computed in f32 as fma(a, x, b y), rounded once to
///           y's.
/// Gradient  none.
/// Errors    check: shapes, types.
void axpby(float a, const Tensor& x, float b, const Tensor& y);

}  // namespace ferry::ops
