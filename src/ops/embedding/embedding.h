// Rows of a table by token id.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// y[t] = w[ids[t]]. An id outside [0, vocab) gives a row of zeros and no gradient: the kernel can
/// neither read there nor report it, so whoever takes ids from outside calls check_ids first.
///
/// Shapes    ids [tokens]; w [vocab, hidden]; returns [tokens, hidden].
/// Types     ids i32; w f32 or bf16, or codes (code * scale in f32), or pairs (pair_linear.h), which
///           have no gradient; returns `out`, f32 or bf16, rounded once.
/// Gradient  d_w f32, dense (w must be f32 then); keeps the ids.
/// Order     d_w: each row sums its tokens in token order, in f32.
/// Errors    check: shapes, types.
Tensor embedding(const Tensor& ids, const Weight& w, DType out);

/// check: every id is in [0, vocab). Names the first that is not and its place.
void check_ids(std::span<const int32_t> ids, int64_t vocab);

}  // namespace ferry::ops
