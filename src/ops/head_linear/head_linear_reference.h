// head_linear in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/head_linear/head_linear.h"
#include "ops/spec.h"

namespace ferry::ops {

/// x [tokens, heads, rows or rank], w [heads * rows_per_head, rank]; see head_linear.h.
RefTensor head_linear_reference(const RefTensor& x,
                                const RefTensor& w,
                                const HeadLinear& options,
                                bool magnitudes = false);

}  // namespace ferry::ops
