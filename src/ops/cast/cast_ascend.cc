// One aclnn op.
#include "ops/ascend/aclnn.h"
#include "ops/cast/cast_kernels.h"

namespace ferry::ops::ascend {

void cast(const Plan&, const CastArgs& args, void*, Stream& stream) {
  if (args.y.count() == 0) return;
  aclnn::Cast(stream, Operand(args.x), acl_type(args.y.dtype), Operand(args.y));
}

}  // namespace ferry::ops::ascend
