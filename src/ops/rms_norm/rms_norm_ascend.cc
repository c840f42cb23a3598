// One aclnn op each way. It takes a float32 weight beside bfloat16 rows, but not the reverse: such
// a weight is cast first, which is exact.
#include "ops/ascend/aclnn.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace ferry::ops::ascend {
namespace {

/// Calls f(operand) with the weight in a type that the op takes beside rows of `dtype`.
template <typename F>
void with_gamma(Stream& stream, const View& weight, DType dtype, F&& f) {
  if (dtype != DType::kF32 || weight.dtype == DType::kF32) return f(Operand(weight));
  const Temp cast(stream, acl::kFloat, {weight.shape[0]});
  aclnn::Cast(stream, Operand(weight), cast.type(), cast);
  f(cast);
}

}  // namespace

void rms_norm_forward(const Plan&, const RmsNormArgs& a, void*, Stream& stream) {
  if (a.x.count() == 0) return;
  with_gamma(stream, a.weight, a.x.dtype, [&](const Operand& gamma) {
    aclnn::RmsNorm(stream,
                   Operand(a.x),
                   gamma,
                   static_cast<double>(a.eps),
                   Operand(a.y),
                   Operand(a.rstd).unsqueeze(1));
  });
}

void rms_norm_backward(const Plan&, const RmsNormBackwardArgs& a, void*, Stream& stream) {
  if (a.x.count() == 0) {
    if (a.d_weight.given()) aclnn::InplaceZero(stream, Operand(a.d_weight));
    return;
  }
  with_gamma(stream, a.weight, a.x.dtype, [&](const Operand& gamma) {
    const auto run = [&](const Operand& d_gamma) {
      aclnn::RmsNormGrad(stream,
                         Operand(a.d_y),
                         Operand(a.x),
                         Operand(a.rstd).unsqueeze(1),
                         gamma,
                         Operand(a.d_x),
                         d_gamma);
    };
    if (a.d_weight.given()) return run(Operand(a.d_weight));
    run(Temp(stream, acl::kFloat, {a.x.shape[1]}));
  });
}

}  // namespace ferry::ops::ascend
