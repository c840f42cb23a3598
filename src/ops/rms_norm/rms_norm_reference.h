// rms_norm in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// x [tokens, hidden], weight [hidden]; see rms_norm.h.
template <class T>
RefArray<T> rms_norm_reference(const RefArray<T>& x, const RefArray<T>& weight, double eps);

}  // namespace ferry::ops
