#include "ops/ascend/squares.h"

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

}  // namespace

void sum_in_steps(Stream& stream, const Operand& from, const Operand& to) {
  const int64_t n = from.dim(0);
  if (n <= kSquaresStep) return sum_runs(stream, from, to);
  const Temp part(stream, acl::kFloat, {(n + kSquaresStep - 1) / kSquaresStep});
  sum_runs(stream, from, part);
  sum_in_steps(stream, part, to);
}

}  // namespace ferry::ops::ascend
