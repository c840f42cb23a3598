// Multiplication by one number, from the host or on the device.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = x * factor, elementwise.
///
/// Shapes    x any shape, may be a strided view; y alike.
/// Types     f32 or bf16; computed in f32, rounded once.
/// Gradient  d_x = d_y * factor.
/// Errors    check: types.
Tensor scale(const Tensor& x, float factor);

/// y = x * factor with a factor that only the device knows (the gradient of a loss).
///
/// Shapes    x any shape, may be a strided view; factor [1]; y alike x.
/// Types     x f32 or bf16; factor f32; computed in f32, rounded once.
/// Gradient  d_x = d_y * factor. None for the factor.
/// Errors    check: shapes, types, a factor that needs a gradient while a tape records.
Tensor scale_by(const Tensor& x, const Tensor& factor);

}  // namespace ferry::ops
