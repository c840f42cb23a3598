// head_linear in float64, for judging kernels.
#include "ops/head_linear/head_linear_reference.h"

#include <cmath>

namespace ferry::ops {

RefTensor head_linear_reference(const RefTensor& x,
                                const RefTensor& w,
                                const HeadLinear& options,
                                bool magnitudes) {
  const int64_t tokens = x.shape[0], heads = x.shape[1], inputs = x.shape[2], rank = w.shape[1];
  const int64_t outputs = options.transpose ? options.rows : rank;
  RefTensor y({tokens, heads, outputs});
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t o = 0; o < outputs; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < inputs; ++i) {
          const int64_t row =
              h * options.rows_per_head + options.begin + (options.transpose ? o : i);
          const double product =
              x[(t * heads + h) * inputs + i] * w[row * rank + (options.transpose ? i : o)];
          sum += magnitudes ? std::abs(product) : product;
        }
        y[(t * heads + h) * outputs + o] = sum;
      }
  return y;
}

}  // namespace ferry::ops
