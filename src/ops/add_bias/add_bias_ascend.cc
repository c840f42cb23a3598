// The sum in f32, then one rounding; the gradient a sum over tokens.
#include "ops/add_bias/add_bias_kernels.h"
#include "ops/ascend/float32.h"

namespace ferry::ops::ascend {

void add_bias(const Plan&, const AddBiasArgs& a, void*, Stream& stream) {
  if (a.x.count() == 0) return;
  const Float32Result y(stream, Operand(a.y));
  aclnn::Add(stream, Operand(a.x), Operand(a.bias), Scalar(1.0f), y);
  y.store();
}

void add_bias_backward(const Plan&, const AddBiasBackwardArgs& a, void*, Stream& stream) {
  if (a.d_y.count() == 0) return aclnn::InplaceZero(stream, Operand(a.d_bias));
  const Float32 d_y(stream, Operand(a.d_y));
  aclnn::ReduceSum(stream, d_y, IntArray{0}, false, acl::kFloat, Operand(a.d_bias));
}

}  // namespace ferry::ops::ascend
