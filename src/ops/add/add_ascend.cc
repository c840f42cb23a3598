// One aclnn op; in place where the sum replaces an operand.
#include "ops/add/add_kernels.h"
#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {

void add(const Plan&, const AddArgs& args, void*, Stream& stream) {
  if (args.y.count() == 0) return;
  const Scalar one(1.0f);
  if (args.y.data == args.a.data)
    return aclnn::InplaceAdd(stream, Operand(args.y), Operand(args.b), one);
  aclnn::Add(stream, Operand(args.a), Operand(args.b), one, Operand(args.y));
}

}  // namespace ferry::ops::ascend
