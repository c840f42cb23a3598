// The linear map of a weight that is stored as whole numbers (tensor/code_panels.h): activations are
// rounded to int8 in groups of 32 columns of a token, and whole numbers are multiplied. linear and
// grouped_linear come here by themselves where a weight is stored so.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y = q(x) wᵀ, q(x) being x rounded to multiples of its groups' scales. With `offsets`, rows
/// [offsets[e], offsets[e + 1]) meet matrix e of a stack.
///
/// Shapes    x [tokens, inputs], rows may be strided; w stored as codes of [outputs, inputs] or
///           [experts, outputs, inputs]; offsets i32 [experts + 1] on the device, or not defined.
/// Types     x f32 or bf16; returns `out`, f32 or bf16, rounded once.
/// Gradient  none: such a weight is not trained.
/// Order     ops/cpu/code_product.h. Sums of whole numbers are exact.
/// Errors    check: shapes, types, a tape that records.
/// Source    W8A8 with dynamic activations, as msModelSlim and vllm-ascend have it, which give a
///           token one scale; a scale for 32 columns is GGUF's Q8_0.
Tensor quantized_linear(const Tensor& x, const Weight& w, const Tensor& offsets, DType out);

}  // namespace ferry::ops
