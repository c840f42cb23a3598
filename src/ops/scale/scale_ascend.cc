// Composed in float32: a float32 factor beside a bfloat16 tensor would be rounded to its type.
#include "ops/ascend/aclnn.h"
#include "ops/ascend/float32.h"
#include "ops/scale/scale_kernels.h"

namespace ferry::ops::ascend {

void scale(const Plan&, const ScaleArgs& args, void*, Stream& stream) {
  if (args.y.count() == 0) return;
  const Float32 x(stream, args.x);
  const Float32Result y(stream, args.y);
  if (args.factor.given())
    aclnn::Mul(stream, x, Operand(args.factor), y);
  else
    aclnn::Muls(stream, x, Scalar(args.number), y);
  y.store();
}

}  // namespace ferry::ops::ascend
