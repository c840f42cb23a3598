// Composed: the log-softmax of whole rows, of which the ids are gathered.
#include <cmath>

#include "ops/ascend/scratch.h"
#include "ops/token_log_probs/token_log_probs_kernels.h"

namespace ferry::ops::ascend {

void token_log_probs(const Plan&, const TokenLogProbsArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  const int64_t rows = a.logits.shape[0], vocab = a.logits.shape[1];
  Scratch scratch(stream);
  const Operand y = a.y, temperature = Operand(a.temperatures).unsqueeze(1);
  const Operand logits = scratch.take(acl::kFloat, {rows, vocab}),
                log_softmax = scratch.take(acl::kFloat, {rows, vocab});
  aclnn::Div(stream, Operand(a.logits), temperature, logits);
  aclnn::LogSoftmax(stream, logits, 1, log_softmax);
  // Ids that are none gather something, which is overwritten.
  const Operand id = scratch.cast(Operand(a.ids), acl::kInt64),
                opposite = scratch.like(id, acl::kInt64), none = scratch.like(id, acl::kBool),
                below = scratch.like(id, acl::kBool), above = scratch.like(id, acl::kBool);
  aclnn::Neg(stream, id, opposite);
  aclnn::GtScalar(stream, opposite, Scalar(int64_t{0}), none);
  aclnn::GtScalar(stream, opposite, Scalar(int64_t{1}), below);
  aclnn::GtScalar(stream, id, Scalar(vocab - 1), above);
  for (const Operand* wrong : {&none, &above})
    aclnn::InplaceMaskedFillScalar(stream, id, *wrong, Scalar(int64_t{0}));
  aclnn::Gather(stream, log_softmax, 1, id, y);
  // -t > 0 or t = 0: what is not above 0.
  const Operand cold = scratch.like(temperature, acl::kFloat),
                invalid = scratch.take(acl::kBool, {rows, 1});
  aclnn::Neg(stream, temperature, cold);
  aclnn::GtScalar(stream, cold, Scalar(-0x1p-149f), invalid);
  aclnn::InplaceMaskedFillScalar(stream, y, invalid, Scalar(NAN));
  // Of no token it is 0 at any temperature.
  aclnn::InplaceMaskedFillScalar(stream, y, none, Scalar(0.0f));
  for (const Operand* wrong : {&below, &above})
    aclnn::InplaceMaskedFillScalar(stream, y, *wrong, Scalar(NAN));
}

}  // namespace ferry::ops::ascend
