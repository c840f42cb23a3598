// rope in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// x [T, H, D] or [T, D], cos and sin [positions, dim / 2], position [T]; see rope.h.
RefTensor rope_reference(const RefTensor& x,
                         const RefTensor& cos,
                         const RefTensor& sin,
                         const RefTensor& position,
                         int64_t begin,
                         bool interleaved);

}  // namespace ferry::ops
