#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// See concat.h.
RefTensor concat_reference(const RefTensor& a, const RefTensor& b);

}  // namespace ferry::ops
