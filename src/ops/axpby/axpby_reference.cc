// The float64 formula.
#include "ops/axpby/axpby_reference.h"

namespace ferry::ops {

RefTensor axpby_reference(double a, const RefTensor& x, double b, const RefTensor& y) {
  RefTensor next(y.shape);
  for (int64_t i = 0; i < y.shape.count(); ++i) next[i] = a * x[i] + b * y[i];
  return next;
}

}  // namespace ferry::ops
