// Two tensors side by side along the last dimension.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = [a | b] along the last dimension.
///
/// Shapes    a [..., A], b [..., B], rank 2 or 3, may be strided; returns [..., A + B], contiguous.
/// Types     f32 or bf16, both alike; a copy, nothing is rounded.
/// Gradient  d_a and d_b are the two parts of d_y.
/// Errors    check: shapes, types.
Tensor concat(const Tensor& a, const Tensor& b);

}  // namespace ferry::ops
