// Composed. The vendor's op (ApplyAdamWV2) takes the betas as float32 and forms 1 - beta from them,
// which is off by 1e-5 of itself at 0.999; here such scalars come from float64 and are rounded
// once.
#include "ops/adamw/adamw_kernels.h"
#include "ops/ascend/aclnn.h"

namespace ferry::ops::ascend {

void adamw(const Plan&, const AdamWArgs& a, void*, Stream& stream) {
  if (a.p.count() == 0) return;
  const Operand p(a.p), m(a.m), v(a.v);
  const Temp g(stream, acl::kFloat, p), t(stream, acl::kFloat, p);
  aclnn::Muls(stream, Operand(a.grad), Scalar(a.grad_scale), g);
  // m = beta1 m + (1 - beta1) g
  aclnn::InplaceMuls(stream, m, Scalar(a.beta1));
  aclnn::InplaceAdd(stream, m, g, Scalar(a.one_minus_beta1));
  // v = beta2 v + (1 - beta2) g g
  aclnn::Mul(stream, g, g, t);
  aclnn::InplaceMuls(stream, v, Scalar(a.beta2));
  aclnn::InplaceAdd(stream, v, t, Scalar(a.one_minus_beta2));
  // p = p decay - step_size m / (sqrt(v) / root + eps)
  aclnn::Sqrt(stream, v, t);
  aclnn::Divs(stream, t, Scalar(a.root), g);
  aclnn::Adds(stream, g, Scalar(a.eps), Scalar(1.0f), t);
  aclnn::Div(stream, m, t, g);
  aclnn::InplaceMuls(stream, p, Scalar(a.decay));
  aclnn::InplaceAdd(stream, p, g, Scalar(-a.step_size));
}

}  // namespace ferry::ops::ascend
