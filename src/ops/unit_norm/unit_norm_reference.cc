// In long double: the CPU's kernel adds in float64.
#include "ops/unit_norm/unit_norm_reference.h"

#include <cmath>

namespace ferry::ops {

RefTensor unit_norm_reference(const RefTensor& x) {
  RefTensor y(x.shape);
  const int64_t batch = x.shape.rank() == 3 ? x.shape[0] : 1;
  const int64_t count = batch == 0 ? 0 : x.shape.count() / batch;
  for (int64_t b = 0; b < batch; ++b) {
    long double sum = 0;
    for (int64_t i = b * count; i < (b + 1) * count; ++i)
      sum += static_cast<long double>(x[i]) * static_cast<long double>(x[i]);
    const auto norm = static_cast<double>(std::sqrt(sum)) + 1e-20;
    for (int64_t i = b * count; i < (b + 1) * count; ++i) y[i] = x[i] / norm;
  }
  return y;
}

}  // namespace ferry::ops
