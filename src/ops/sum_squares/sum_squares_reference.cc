// In long double: the kernel itself computes in float64.
#include "ops/sum_squares/sum_squares_reference.h"

#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops {

double sum_squares_reference(const std::vector<RefTensor>& tensors) {
  long double sum = 0;
  for (const RefTensor& t : tensors)
    for (const double v : t.values)
      sum += static_cast<long double>(v) * static_cast<long double>(v);
  return static_cast<double>(sum);
}

/// In float64: 256 additions in a lane, 4 over lanes, then the trees over blocks and tensors. In
/// float32, which devices may use: the square, then steps that add 64 numbers, in any order.
double sum_squares_error(int64_t elements) {
  int64_t steps = 0;
  for (int64_t n = elements; n > 1; n = (n + kSquaresStep - 1) / kSquaresStep) ++steps;
  return 300 * 0x1p-53 + static_cast<double>(1 + (kSquaresStep - 1) * steps) * 0x1p-24;
}

}  // namespace ferry::ops
