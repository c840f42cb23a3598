// scale in float64, for judging kernels.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// See scale.h.
RefTensor scale_reference(const RefTensor& x, double factor);

}  // namespace ferry::ops
