// attention in float64, written plainly: what its kernels are judged by.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/spec.h"

namespace ferry::ops {

/// q [T, H, Dqk], k [S, Hk, Dqk], v [S, Hk, Dv]; see attention.h.
RefTensor attention_reference(const RefTensor& q,
                              const RefTensor& k,
                              const RefTensor& v,
                              const std::vector<int32_t>& position,
                              const std::vector<int32_t>& key_begin,
                              double scale);

}  // namespace ferry::ops
