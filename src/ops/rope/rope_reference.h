// rope in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// x [T, H, D] or [T, D], cos and sin [positions, dim / 2], position [T]; see rope.h.
template <class T>
RefArray<T> rope_reference(const RefArray<T>& x,
                           const RefArray<T>& cos,
                           const RefArray<T>& sin,
                           const RefArray<T>& position,
                           int64_t begin,
                           bool interleaved);

}  // namespace ferry::ops
