// grouped_linear in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// x [rows, inputs], w [experts, outputs, inputs], offsets [experts + 1]; see grouped_linear.h.
RefTensor grouped_linear_reference(const RefTensor& x,
                                   const RefTensor& w,
                                   const RefTensor& offsets,
                                   bool magnitudes = false);

}  // namespace ferry::ops
