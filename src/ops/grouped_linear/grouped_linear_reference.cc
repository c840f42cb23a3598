// grouped_linear in float64, for judging kernels.
#include "ops/grouped_linear/grouped_linear_reference.h"

#include <cmath>

namespace ferry::ops {

RefTensor grouped_linear_reference(const RefTensor& x,
                                   const RefTensor& w,
                                   const RefTensor& offsets,
                                   bool magnitudes) {
  const int64_t experts = w.shape[0], outputs = w.shape[1], inputs = w.shape[2];
  RefTensor y({x.shape[0], outputs});
  for (int64_t e = 0; e < experts; ++e)
    for (auto r = static_cast<int64_t>(offsets[e]); r < static_cast<int64_t>(offsets[e + 1]); ++r)
      for (int64_t o = 0; o < outputs; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          const double product = x[r * inputs + i] * w[(e * outputs + o) * inputs + i];
          sum += magnitudes ? std::abs(product) : product;
        }
        y[r * outputs + o] = sum;
      }
  return y;
}

}  // namespace ferry::ops
