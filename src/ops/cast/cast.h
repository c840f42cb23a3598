// Between f32 and bf16.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// x in another type. The same type gives x itself, not a copy.
///
/// Shapes    x any shape, may be a strided view; returns the same shape.
/// Types     f32 to bf16 rounds to nearest even; bf16 to f32 is exact.
/// Gradient  d_x = d_y cast back: a bf16 d_x is rounded from f32.
/// Errors    check: types.
Tensor cast(const Tensor& x, DType to);

}  // namespace ferry::ops
