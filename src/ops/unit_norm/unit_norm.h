// Matrices brought to norm 1, for optimizers that look at directions alone.
#pragma once

#include "tensor/tensor.h"

namespace ferry::ops {

/// y = x / (|x| + 1e-20), |x| being the Frobenius norm: nearly zero matrices are not blown up. All
/// on the device: nobody waits for the norm.
///
/// Shapes    x [n, m], or [batch, n, m] matrix by matrix; contiguous; returns x's shape.
/// Types     f32. The squares are added as sum_squares adds them, on the CPU in float64, where the
///           factor 1 / (|x| + 1e-20) is rounded once to f32.
/// Gradient  none.
/// Order     sum_squares', for each matrix: no matrix sees another.
/// Errors    check: shapes, types, contiguity.
Tensor unit_norm(const Tensor& x);

}  // namespace ferry::ops
