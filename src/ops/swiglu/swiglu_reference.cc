// The float64 formula.
#include "ops/swiglu/swiglu_reference.h"

#include <cmath>

#include "base/math.h"

namespace ferry::ops {

RefTensor swiglu_reference(const RefTensor& gate, const RefTensor& up) {
  RefTensor y(gate.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = gate[i] / (1 + math::exp(-gate[i])) * up[i];
  return y;
}

}  // namespace ferry::ops
