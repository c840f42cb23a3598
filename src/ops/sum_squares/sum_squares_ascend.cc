// Squares, then sums in steps (ops/ascend/squares.h).
#include "ops/ascend/squares.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops::ascend {

void sum_squares(const Plan&, const SumSquaresArgs& args, void*, Stream& stream) {
  const Operand sum(args.sum);
  const int64_t n = args.x.count();
  if (n == 0) return aclnn::InplaceZero(stream, sum);
  const Operand x(args.x.data, acl::kFloat, {n});
  const Temp squares(stream, acl::kFloat, {n});
  aclnn::Mul(stream, x, x, squares);
  sum_in_steps(stream, squares, sum);
}

}  // namespace ferry::ops::ascend
