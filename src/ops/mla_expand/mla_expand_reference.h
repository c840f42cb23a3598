// mla_expand in float64, written plainly: what its kernels are judged by.
#pragma once

#include <vector>

#include "ops/spec.h"

namespace ferry::ops {

/// kv [T, H, nope + dv], k_pe [T, dr] -> k, v; see mla_expand.h.
std::vector<RefTensor> mla_expand_reference(const RefTensor& kv,
                                            const RefTensor& k_pe,
                                            int64_t nope);

}  // namespace ferry::ops
