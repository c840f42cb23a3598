// swiglu in float64, for judging kernels.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// gate and up of one shape; see swiglu.h.
RefTensor swiglu_reference(const RefTensor& gate, const RefTensor& up);

}  // namespace ferry::ops
