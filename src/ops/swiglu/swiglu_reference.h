// swiglu in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// gate and up of one shape; see swiglu.h.
template <class T>
RefArray<T> swiglu_reference(const RefArray<T>& gate, const RefArray<T>& up);

}  // namespace ferry::ops
