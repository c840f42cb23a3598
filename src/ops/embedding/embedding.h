// Rows of a table by token id.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y[t] = w[ids[t]]. An id outside [0, vocab) gives a row of zeros and no gradient: the kernel can
/// neither read there nor report it, so whoever takes ids from outside checks them first.
///
/// Shapes    ids [tokens]; w [vocab, hidden]; returns [tokens, hidden].
/// Types     ids i32; w f32 or bf16, or codes (code * scale in f32), or pairs (pair_linear.h), which
///           have no gradient; returns `out`, f32 or bf16, rounded once.
/// Gradient  d_w f32, dense (w must be f32 then); keeps the ids.
/// Order     d_w: each row sums its tokens in token order, in f32.
/// Errors    check: shapes, types.
Tensor embedding(const Tensor& ids, const Weight& w, DType out);

}  // namespace ferry::ops
