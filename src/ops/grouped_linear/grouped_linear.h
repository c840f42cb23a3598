// The experts' linear maps: rows sorted by expert, one weight matrix for each.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y[r] = x[r] w[e]ᵀ for the rows r in [offsets[e], offsets[e + 1]) of expert e.
///
/// Shapes    x [rows, inputs], rows may be strided; w [experts, outputs, inputs]; offsets i32
///           [experts + 1] on the device, ascending from 0 to rows; returns [rows, outputs].
/// Types     as linear; returns x's type.
/// Gradient  d_x; d_w in the weight's type, zero for experts without rows. Keeps x,
///           or what it is made of, and offsets.
/// Order     ops/cpu/gemm.h: a row has the bits that linear gives it with its expert's weight.
///           A w that is stored as whole numbers: quantized_linear.h, as pairs: pair_linear.h,
///           without gradients.
/// Errors    check: shapes, types. Offsets are not read on the host, so they are not checked.
Tensor grouped_linear(const Tensor& x, const Weight& w, const Tensor& offsets);

}  // namespace ferry::ops
