// grouped_linear in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// x [rows, inputs], w [experts, outputs, inputs], offsets [experts + 1]; see grouped_linear.h.
template <class T>
RefArray<T> grouped_linear_reference(const RefArray<T>& x,
                                     const RefArray<T>& w,
                                     const RefTensor& offsets);

}  // namespace ferry::ops
