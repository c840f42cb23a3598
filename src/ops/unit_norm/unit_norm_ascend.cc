// Composed in float32: the norm of each matrix, and one division for all.
#include "ops/ascend/squares.h"
#include "ops/unit_norm/unit_norm_kernels.h"

namespace ferry::ops::ascend {

void unit_norm(const Plan&, const UnitNormArgs& a, void*, Stream& stream) {
  const int64_t batch = a.x.shape[0], count = a.x.shape[1] * a.x.shape[2];
  if (batch * count == 0) return;
  const Operand x(a.x.data, acl::kFloat, {batch, count}), y(a.y.data, acl::kFloat, {batch, count});
  const Temp squares(stream, acl::kFloat, {batch, count}), norms(stream, acl::kFloat, {batch, 1}),
      padded(stream, acl::kFloat, {batch, 1});
  aclnn::Mul(stream, x, x, squares);
  for (int64_t b = 0; b < batch; ++b)
    sum_in_steps(
        stream, squares.slice(0, b, b + 1).squeeze(0), norms.slice(0, b, b + 1).squeeze(0));
  aclnn::Sqrt(stream, norms, norms);
  aclnn::Adds(stream, norms, Scalar(static_cast<float>(kUnitNormLeast)), Scalar(1.0f), padded);
  aclnn::Div(stream, x, padded, y);
}

}  // namespace ferry::ops::ascend
