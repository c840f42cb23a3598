// Sum of two tensors, and accumulation in place.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = a + b, elementwise.
///
/// Shapes    a, b and y alike, any rank; a and b may be strided views.
/// Types     f32 or bf16, both alike; computed in f32, rounded once.
/// Gradient  d_a = d_b = d_y.
/// Errors    check: shapes, types.
Tensor add(const Tensor& a, const Tensor& b);

/// into += from, in place, never recorded: what a Tape accumulates gradients with.
void accumulate(const Tensor& into, const Tensor& from);

}  // namespace ferry::ops
