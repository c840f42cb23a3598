// unit_norm in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// x [n, m] or [batch, n, m].
RefTensor unit_norm_reference(const RefTensor& x);

}  // namespace ferry::ops
