// The linear map of a weight matrix, which is stored as checkpoints store it: [outputs, inputs].
#pragma once

#include <optional>

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

struct LinearOptions {
  std::optional<DType> out = {};  // default: x's type
  bool keep = true;  // false: whoever needs y for a gradient makes it again, for a small x
};

/// y = x wᵀ.
///
/// Shapes    x [tokens, inputs], rows may be strided; w [outputs, inputs]; returns [tokens,
///           outputs].
/// Types     x and w f32 or bf16, y f32 or bf16; products in x's type (an f32 w is rounded to it,
///           and so is d_y in the gradient), accumulated in f32, rounded once.
/// Gradient  d_x; d_w in the weight's type, as a weight gradient. Keeps x, or what it is made of.
/// Order     ops/cpu/gemm.h; the gradients contract outputs and tokens in the same way. A w that is
///           stored as whole numbers is multiplied as quantized_linear.h says, one that is stored as
///           pairs as pair_linear.h does, without gradients.
/// Errors    check: shapes, types.
Tensor linear(const Tensor& x, const Weight& w, const LinearOptions& options = {});

}  // namespace ferry::ops
