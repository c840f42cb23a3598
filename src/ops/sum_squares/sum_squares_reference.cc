// In long double: the kernel itself computes in float64.
#include "ops/sum_squares/sum_squares_reference.h"

namespace ferry::ops {

double sum_squares_reference(const std::vector<RefTensor>& tensors) {
  long double sum = 0;
  for (const RefTensor& t : tensors)
    for (const double v : t.values)
      sum += static_cast<long double>(v) * static_cast<long double>(v);
  return static_cast<double>(sum);
}

}  // namespace ferry::ops
