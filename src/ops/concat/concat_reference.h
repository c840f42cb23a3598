// concat in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// See concat.h.
template <class T>
RefArray<T> concat_reference(const RefArray<T>& a, const RefArray<T>& b);

}  // namespace ferry::ops
