#include "ops/add_bias/add_bias_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> add_bias_reference(const RefArray<T>& x, const RefArray<T>& bias) {
  RefArray<T> y(x.shape);
  const int64_t columns = x.shape[1];
  for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = x[i] + bias[i % columns];
  return y;
}

template RefTensor add_bias_reference(const RefTensor&, const RefTensor&);
template RealTensor add_bias_reference(const RealTensor&, const RealTensor&);

}  // namespace ferry::ops
