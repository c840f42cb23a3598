// sum_squares in extended precision, for judging kernels.
#pragma once

#include <vector>

#include "ops/reference_tensor.h"

namespace ferry::ops {

/// See sum_squares.h.
double sum_squares_reference(const std::vector<RefTensor>& tensors);

/// Bound on the relative error of a kernel's sum of so many squares, on any device.
double sum_squares_error(int64_t elements);

}  // namespace ferry::ops
