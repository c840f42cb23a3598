// rms_norm in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// x [tokens, hidden], weight [hidden]; see rms_norm.h.
RefTensor rms_norm_reference(const RefTensor& x, const RefTensor& weight, double eps);

}  // namespace ferry::ops
