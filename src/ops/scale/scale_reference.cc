// The float64 formula.
#include "ops/scale/scale_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> scale_reference(const RefArray<T>& x, T factor) {
  RefArray<T> y(x.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = x[i] * factor;
  return y;
}

template RefTensor scale_reference(const RefTensor&, double);
template RealTensor scale_reference(const RealTensor&, Real);

}  // namespace ferry::ops
