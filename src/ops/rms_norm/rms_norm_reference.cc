// rms_norm in float64, for judging kernels.
#include "ops/rms_norm/rms_norm_reference.h"

#include <cmath>

namespace ferry::ops {

RefTensor rms_norm_reference(const RefTensor& x, const RefTensor& weight, double eps) {
  const int64_t tokens = x.shape[0], hidden = x.shape[1];
  RefTensor y(x.shape);
  for (int64_t t = 0; t < tokens; ++t) {
    double squares = 0;
    for (int64_t i = 0; i < hidden; ++i) squares += x[t * hidden + i] * x[t * hidden + i];
    const double rstd = 1 / std::sqrt(squares / static_cast<double>(hidden) + eps);
    for (int64_t i = 0; i < hidden; ++i) y[t * hidden + i] = x[t * hidden + i] * rstd * weight[i];
  }
  return y;
}

}  // namespace ferry::ops
