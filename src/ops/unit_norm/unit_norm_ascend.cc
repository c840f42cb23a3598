// Composed in float32: the norm of each matrix, and one division for all. Elements are divided by
// the matrix's largest before they are squared: the squares of elements below 1e-19 would be zero,
// those of elements beyond 1e19 infinite.
#include "ops/ascend/squares.h"
#include "ops/unit_norm/unit_norm_kernels.h"

namespace ferry::ops::ascend {

void unit_norm(const Plan&, const UnitNormArgs& a, void*, Stream& stream) {
  const int64_t batch = a.x.shape[0], count = a.x.shape[1] * a.x.shape[2];
  if (batch * count == 0) return;
  const Operand x(a.x.data, acl::kFloat, {batch, count}), y(a.y.data, acl::kFloat, {batch, count});
  const Temp part(stream, acl::kFloat, {batch, count}), largest(stream, acl::kFloat, {batch, 1}),
      norms(stream, acl::kFloat, {batch, 1}), padded(stream, acl::kFloat, {batch, 1});
  const Scalar one(1.0f);
  aclnn::Neg(stream, x, part);
  aclnn::Maximum(stream, x, part, part);
  aclnn::Amax(stream, part, IntArray({1}), true, largest);
  constexpr float kNoZero = 1e-30f;  // far below kUnitNormLeast, where the norm no longer matters
  aclnn::Adds(stream, largest, Scalar(kNoZero), one, largest);
  aclnn::Div(stream, x, largest, part);
  aclnn::Mul(stream, part, part, part);
  for (int64_t b = 0; b < batch; ++b)
    sum_in_steps(stream, part.slice(0, b, b + 1).squeeze(0), norms.slice(0, b, b + 1).squeeze(0));
  aclnn::Sqrt(stream, norms, norms);
  aclnn::InplaceMul(stream, norms, largest);
  aclnn::Adds(stream, norms, Scalar(static_cast<float>(kUnitNormLeast)), one, padded);
  aclnn::Div(stream, x, padded, y);
}

}  // namespace ferry::ops::ascend
