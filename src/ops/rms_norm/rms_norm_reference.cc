// rms_norm in float64, for judging kernels.
#include "ops/rms_norm/rms_norm_reference.h"

#include <cmath>

namespace ferry::ops {

template <class T>
RefArray<T> rms_norm_reference(const RefArray<T>& x, const RefArray<T>& weight, double eps) {
  using std::sqrt;
  const int64_t tokens = x.shape[0], hidden = x.shape[1];
  RefArray<T> y(x.shape);
  for (int64_t t = 0; t < tokens; ++t) {
    const T* row = x.values.data() + t * hidden;
    const T squares = dot(row, 1, row, 1, hidden);
    const T rstd = T(1) / sqrt(squares / T(static_cast<double>(hidden)) + T(eps));
    for (int64_t i = 0; i < hidden; ++i) y[t * hidden + i] = x[t * hidden + i] * rstd * weight[i];
  }
  return y;
}

template RefTensor rms_norm_reference(const RefTensor&, const RefTensor&, double);
template RealTensor rms_norm_reference(const RealTensor&, const RealTensor&, double);

}  // namespace ferry::ops
