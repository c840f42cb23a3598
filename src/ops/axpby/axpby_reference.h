// axpby in float64, for judging kernels.
#pragma once

#include "ops/reference_tensor.h"

namespace ferry::ops {

/// Returns the new y; see axpby.h.
RefTensor axpby_reference(double a, const RefTensor& x, double b, const RefTensor& y);

}  // namespace ferry::ops
