// Composed in float32: each product is rounded, then their sum, then once to y's type.
#include "ops/ascend/aclnn.h"
#include "ops/ascend/float32.h"
#include "ops/axpby/axpby_kernels.h"

namespace ferry::ops::ascend {

void axpby(const Plan&, const AxpbyArgs& args, void*, Stream& stream) {
  if (args.y.count() == 0) return;
  const Float32 x(stream, args.x);
  const Float32Result y(stream, args.y);
  if (args.b == 0) {  // y is not read: it may be uninitialised
    aclnn::Muls(stream, x, Scalar(args.a), y);
  } else {
    const Temp ax(stream, acl::kFloat, x.operand());
    aclnn::Muls(stream, x, Scalar(args.a), ax);
    y.load();
    aclnn::InplaceMuls(stream, y, Scalar(args.b));
    aclnn::InplaceAdd(stream, y, ax, Scalar(1.0f));
  }
  y.store();
}

}  // namespace ferry::ops::ascend
