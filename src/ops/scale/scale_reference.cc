// The float64 formula.
#include "ops/scale/scale_reference.h"

namespace ferry::ops {

RefTensor scale_reference(const RefTensor& x, double factor) {
  RefTensor y(x.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = x[i] * factor;
  return y;
}

}  // namespace ferry::ops
