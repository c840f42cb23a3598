// concat in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// See concat.h.
RefTensor concat_reference(const RefTensor& a, const RefTensor& b);

}  // namespace ferry::ops
