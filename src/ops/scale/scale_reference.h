// scale in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// See scale.h.
template <class T>
RefArray<T> scale_reference(const RefArray<T>& x, T factor);

}  // namespace ferry::ops
