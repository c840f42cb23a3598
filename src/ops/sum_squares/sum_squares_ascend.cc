// Squares, then sums in steps of 64 in float32: in whatever order the chip adds inside a step, a
// step adds at most 63 roundings.
#include "ops/ascend/aclnn.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops::ascend {
namespace {

/// One step: `from` [n] into `to` [ceil(n / 64)].
void sum_runs(Stream& stream, const Operand& from, const Operand& to) {
  const int64_t n = from.dim(0), whole = n / kSquaresStep;
  const IntArray last({1});
  if (whole > 0)
    aclnn::ReduceSum(stream,
                     from.slice(0, 0, whole * kSquaresStep).split(0, whole),
                     last,
                     false,
                     acl::kFloat,
                     to.slice(0, 0, whole));
  if (n % kSquaresStep != 0)
    aclnn::ReduceSum(stream,
                     from.slice(0, whole * kSquaresStep, n).unsqueeze(0),
                     last,
                     false,
                     acl::kFloat,
                     to.slice(0, whole, whole + 1));
}

void sum_all(Stream& stream, const Operand& from, const Operand& to) {
  const int64_t n = from.dim(0);
  if (n <= kSquaresStep) return sum_runs(stream, from, to);
  const Temp part(stream, acl::kFloat, {(n + kSquaresStep - 1) / kSquaresStep});
  sum_runs(stream, from, part);
  sum_all(stream, part, to);
}

}  // namespace

void sum_squares(const Plan&, const SumSquaresArgs& args, void*, Stream& stream) {
  const Operand sum(args.sum);
  const int64_t n = args.x.count();
  if (n == 0) return aclnn::InplaceZero(stream, sum);
  const Operand x(args.x.data, acl::kFloat, {n});
  const Temp squares(stream, acl::kFloat, {n});
  aclnn::Mul(stream, x, x, squares);
  sum_all(stream, squares, sum);
}

}  // namespace ferry::ops::ascend
