// One aclnn op.
#include "ops/ascend/aclnn.h"
#include "ops/concat/concat_kernels.h"

namespace ferry::ops::ascend {

void concat(const Plan&, const ConcatArgs& args, void*, Stream& stream) {
  if (args.y.count() == 0) return;
  aclnn::Cat(stream, OperandList({Operand(args.a), Operand(args.b)}), -1, Operand(args.y));
}

}  // namespace ferry::ops::ascend
