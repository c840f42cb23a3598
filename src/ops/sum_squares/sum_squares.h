// The sum of squares of many tensors, for the gradient's norm, and whether all of them are finite.
#pragma once

#include <span>

#include "tensor/tensor.h"

namespace ferry::ops {

struct SquareSum {
  double sum = 0;
  bool finite = true;  // no element is NaN or infinite. (In float64 squares of finite f32 cannot
                       // overflow; on devices that sum in float32 an element beyond 1e19 counts
                       // as infinite too.)
};

/// One sum for each tensor, on the device: [tensors] f64, or f32 on devices that add in it, to be
/// read with the step's other numbers (read_together) and given to total_of.
///
/// Shapes    any; contiguous.
/// Types     f32; squares and sums in float64, on devices without it in float32 by steps of 64.
/// Gradient  none.
/// Order     blocks of 4096 elements: 16 lanes, then the fixed lane tree; the blocks of a tensor as
///           a binary tree of neighbours. So it depends on the shapes alone.
/// Errors    check: types, contiguity, all on one device, one at least.
Tensor sum_squares(std::span<const Tensor> tensors);

/// The tensors' sums, in order, added in float64.
SquareSum total_of(std::span<const double> sums);

}  // namespace ferry::ops
