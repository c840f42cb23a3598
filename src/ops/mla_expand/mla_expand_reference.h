// mla_expand in float64, written plainly: what its kernels are judged by.
#pragma once

#include <vector>

#include "ops/reference_tape.h"

namespace ferry::ops {

/// kv [T, H, nope + dv], k_pe [T, dr] -> k, v; see mla_expand.h.
template <class T>
std::vector<RefArray<T>> mla_expand_reference(const RefArray<T>& kv,
                                              const RefArray<T>& k_pe,
                                              int64_t nope);

}  // namespace ferry::ops
