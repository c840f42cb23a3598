// attention in float64, written plainly: what its kernels are judged by.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/reference_tape.h"

namespace ferry::ops {

/// q [T, H, Dqk], k [S, Hk, Dqk], v [S, Hk, Dv]; see attention.h.
template <class T>
RefArray<T> attention_reference(const RefArray<T>& q,
                                const RefArray<T>& k,
                                const RefArray<T>& v,
                                const std::vector<int32_t>& position,
                                const std::vector<int32_t>& key_begin,
                                double scale);

}  // namespace ferry::ops
