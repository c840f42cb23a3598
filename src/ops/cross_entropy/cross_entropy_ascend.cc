// Chunks of tokens: logits in float32, their log-softmax, losses, and the two products of the
// gradient. A bf16 head is widened for the logits, as in matmul: they must not be rounded to bf16.
#include <algorithm>
#include <cmath>

#include "ops/ascend/scratch.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"

namespace ferry::ops::ascend {
namespace {

constexpr int64_t kNoReduction = 0;
constexpr int64_t kIgnored = -1;  // label

/// Labels for the ops: int64, ignored where they are not in the vocabulary, and where that is
/// wrong.
struct Labels {
  Operand target;        // int64 [tokens]
  Operand below, above;  // bool [tokens, 1]: less than -1; past the vocabulary
};

Labels make_labels(Scratch& scratch, const Operand& labels, int64_t vocab) {
  Stream& stream = scratch.stream();
  const Operand target = scratch.cast(labels, acl::kInt64),
                opposite = scratch.like(labels, acl::kInt64),
                below = scratch.take(acl::kBool, {labels.dim(0), 1}),
                above = scratch.take(acl::kBool, {labels.dim(0), 1});
  const Operand column = target.unsqueeze(1);
  aclnn::Neg(stream, target, opposite);
  aclnn::GtScalar(stream, opposite.unsqueeze(1), Scalar(-kIgnored), below);
  aclnn::GtScalar(stream, column, Scalar(vocab - 1), above);
  for (const Operand* wrong : {&below, &above})
    aclnn::InplaceMaskedFillScalar(stream, column, *wrong, Scalar(kIgnored));
  return {target, below, above};
}

}  // namespace

void cross_entropy(const Plan&, const CrossEntropyArgs& a, void*, Stream& stream) {
  const int64_t tokens = a.hidden.shape[0], vocab = a.head.shape[0];
  const Operand hidden = a.hidden, token_losses = a.token_losses, loss = a.loss;
  const Operand d_hidden = a.d_hidden, d_head = a.d_head;
  if (tokens == 0) {
    aclnn::InplaceZero(stream, loss);
    if (a.d_head.given()) aclnn::InplaceZero(stream, d_head);
    return;
  }
  Scratch scratch(stream);
  const Operand head = scratch.cast(a.head, hidden.type()),  // rounded, as the products take it
      head_f32 = scratch.cast(head, acl::kFloat), ones = scratch.take(acl::kFloat, {vocab}),
                scales = scratch.take(acl::kFloat, {tokens}),
                total_weight = scratch.take(acl::kFloat, {1});
  aclnn::InplaceFillScalar(stream, ones, Scalar(1.0f));
  aclnn::InplaceFillScalar(stream, scales, Scalar(a.scale));
  if (a.weights.given()) aclnn::InplaceMul(stream, scales, Operand(a.weights));
  const Labels labels = make_labels(scratch, a.labels, vocab);
  for (int64_t begin = 0; begin < tokens; begin += a.chunk) {
    const int64_t end = std::min(tokens, begin + a.chunk), rows = end - begin;
    Scratch inner(stream);
    const Operand h = hidden.slice(0, begin, end), h_f32 = inner.cast(h, acl::kFloat),
                  target = labels.target.slice(0, begin, end),
                  losses = token_losses.slice(0, begin, end),
                  logits = inner.take(acl::kFloat, {rows, vocab}),
                  log_softmax = inner.take(acl::kFloat, {rows, vocab});
    const auto not_a_number = [&](const Operand& x) {  // where the label is wrong
      for (const Operand* wrong : {&labels.below, &labels.above})
        aclnn::InplaceMaskedFillScalar(stream, x, wrong->slice(0, begin, end), Scalar(NAN));
    };
    aclnn::Mm(stream, h_f32, head_f32.transpose(0, 1), logits, kKeepType);
    aclnn::LogSoftmax(stream, logits, 1, log_softmax);
    aclnn::NLLLoss(stream, log_softmax, target, ones, kNoReduction, kIgnored, losses, total_weight);
    not_a_number(losses.unsqueeze(1));
    if (!a.d_hidden.given() && !a.d_head.given()) continue;
    const Operand d_log_softmax = inner.take(acl::kFloat, {rows, vocab});
    const Operand& d_logits = logits;  // in place of them
    aclnn::NLLLossBackward(stream,
                           scales.slice(0, begin, end),
                           log_softmax,
                           target,
                           ones,
                           kNoReduction,
                           kIgnored,
                           total_weight,
                           d_log_softmax);
    aclnn::LogSoftmaxBackward(stream, d_log_softmax, log_softmax, 1, d_logits);
    not_a_number(d_logits);
    if (a.d_hidden.given())
      aclnn::Mm(stream,
                inner.cast(d_logits, hidden.type()),
                head,
                d_hidden.slice(0, begin, end),
                kKeepType);
    if (a.d_head.given()) {
      const Operand of_chunk = begin == 0 ? d_head : inner.like(d_head, acl::kFloat);
      aclnn::Mm(stream, d_logits.transpose(0, 1), h_f32, of_chunk, kKeepType);
      if (begin > 0) aclnn::InplaceAdd(stream, d_head, of_chunk, Scalar(1.0f));
    }
  }
  const auto sum = [&](const Operand& losses) {
    aclnn::ReduceSum(stream, losses, IntArray{0}, true, acl::kFloat, loss);
  };
  if (a.weights.given()) {
    const Operand weighted = scratch.like(token_losses, acl::kFloat);
    aclnn::InplaceCopy(stream, weighted, token_losses);
    aclnn::InplaceMul(stream, weighted, Operand(a.weights));
    sum(weighted);
  } else {
    sum(token_losses);
  }
  aclnn::InplaceMuls(stream, loss, Scalar(a.scale));
}

void cross_entropy_backward(const Plan&, const CrossEntropyBackwardArgs& a, void*, Stream& stream) {
  if (a.gradient.count() == 0) return;
  Scratch scratch(stream);
  const Operand gradient = a.gradient, d_loss = a.d_loss;
  const Operand product = scratch.cast(gradient, acl::kFloat);
  aclnn::InplaceMul(stream, product, d_loss);
  if (gradient.type() != acl::kFloat) aclnn::InplaceCopy(stream, gradient, product);
}

}  // namespace ferry::ops::ascend
