// The product of two matrices, without gradient: for optimizers, and what linear is made of.
#pragma once

#include <optional>

#include "tensor/tensor.h"

namespace ferry::ops {

struct MatmulOptions {
  bool transpose_a = false;
  bool transpose_b = false;
  std::optional<DType> out = {};  // default: a's type
};

/// c = op(a) op(b), op being the transpose where the options say so.
///
/// Shapes    a [m, k] (or [k, m]), b [k, n] (or [n, k]); returns [m, n]. Or all with a batch in
///           front. Any strides but the last dimension's, which is 1.
/// Types     f32 or bf16; products in a's type (b is rounded to it), accumulated in f32, rounded
///           once.
/// Gradient  none: never recorded.
/// Order     ops/cpu/gemm.h: k ascending (bf16: in pairs, odd then even), one accumulator per
///           element.
/// Errors    check: shapes, types.
Tensor matmul(const Tensor& a, const Tensor& b, const MatmulOptions& options = {});

}  // namespace ferry::ops
