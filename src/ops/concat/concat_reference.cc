// concat in float64, for judging kernels.
#include "ops/concat/concat_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> concat_reference(const RefArray<T>& a, const RefArray<T>& b) {
  const int last = a.shape.rank() - 1;
  const int64_t na = a.shape[last], nb = b.shape[last], n = na + nb;
  Shape shape = a.shape;
  shape[last] = n;
  RefArray<T> y(shape);
  for (int64_t i = 0; i < shape.count(); ++i)
    y[i] = i % n < na ? a[i / n * na + i % n] : b[i / n * nb + i % n - na];
  return y;
}

template RefTensor concat_reference(const RefTensor&, const RefTensor&);
template RealTensor concat_reference(const RealTensor&, const RealTensor&);

}  // namespace ferry::ops
