// head_linear in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/head_linear/head_linear.h"
#include "ops/reference_tape.h"

namespace ferry::ops {

/// x [tokens, heads, rows or rank], w [heads * rows_per_head, rank]; see head_linear.h.
template <class T>
RefArray<T> head_linear_reference(const RefArray<T>& x,
                                  const RefArray<T>& w,
                                  const HeadLinear& options);

}  // namespace ferry::ops
