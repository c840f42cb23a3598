// sum_squares in extended precision, for judging kernels.
#pragma once

#include <vector>

#include "ops/reference_tensor.h"

namespace ferry::ops {

/// See sum_squares.h.
double sum_squares_reference(const std::vector<RefTensor>& tensors);

}  // namespace ferry::ops
