// The float64 formula.
#include "ops/swiglu/swiglu_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> swiglu_reference(const RefArray<T>& gate, const RefArray<T>& up) {
  RefArray<T> y(gate.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
  return y;
}

template RefTensor swiglu_reference(const RefTensor&, const RefTensor&);
template RealTensor swiglu_reference(const RealTensor&, const RealTensor&);

}  // namespace ferry::ops
