// A product for each attention head with its own slice of one weight: what MLA's absorbed form
// makes of kv_b_proj, so that attention runs on the latent itself.
#pragma once

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// Rows [begin, begin + rows) of each head's rows_per_head in the weight.
struct HeadLinear {
  int64_t rows_per_head = 0;
  int64_t begin = 0;
  int64_t rows = 0;
  bool transpose = false;
};

/// y[t, h] = x[t, h] W_h, or x[t, h] W_hᵀ if transpose, where W_h are the chosen rows of head h.
///
/// Shapes    w [heads * rows_per_head, rank]. x [tokens, heads, rows], returns [tokens, heads,
///           rank]; if transpose the other way round. x may be a slice of a wider last dimension.
/// Types     as linear; returns x's type.
/// Gradient  d_x; d_w in the weight's type, added to the chosen rows. Keeps x, or what it is
///           made of.
/// Order     ops/cpu/gemm.h, over rows (over rank if transpose).
/// Errors    check: shapes, types, the range of rows.
/// Source    DeepSeek-V2, arXiv 2405.04434, section 2.1.2 (absorbing W_UK and W_UV).
Tensor head_linear(const Tensor& x, const Weight& w, const HeadLinear& options);

}  // namespace ferry::ops
