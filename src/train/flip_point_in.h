// Where a test changes a bit of what a run computes or holds (base/fault.h), as a chip or memory does that has gone
// bad.
#pragma once

#include <span>

#include "tensor/tensor.h"

namespace ferry {

/// The point, which is shown the memory of those of the tensors that are defined. Nothing where that is a chip's.
void flip_point_in(const char* name, std::span<const Tensor> tensors);

}  // namespace ferry
