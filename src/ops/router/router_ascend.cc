// Routing through aclnnMoeGatingTopK where that knows the gate: DeepSeek's two, sigmoid with
// weights that are divided by their sum, and softmax with weights that are not. Elsewhere, and when
// the experts are given, it is composed: stable sorts give ties to the lower expert.
#include <cmath>

#include "ops/ascend/scratch.h"
#include "ops/router/router_kernels.h"

namespace ferry::ops::ascend {
namespace {

constexpr double kTiny = 1e-20;  // sigmoid scores may all be zero

bool grouped(const RouterConfig& c) { return c.groups_kept < c.groups; }

bool fused(const RouterArgs& a) {
  const RouterConfig& c = a.config;
  constexpr int64_t kAligned = 32, kExpertsAlignedMax = 2048;  // the op's limits
  const int64_t size = c.experts / c.groups;
  return !a.given.given() && c.sigmoid == c.normalize &&
         (!grouped(c) ||
          (size + kAligned - 1) / kAligned * kAligned * c.groups <= kExpertsAlignedMax);
}

void fused_forward(const RouterArgs& a, Stream& stream) {
  constexpr int64_t kByMaximum = 0, kByTwoBest = 1;  // groupSelectMode
  constexpr int64_t kSoftmax = 0, kSigmoid = 1;      // normType
  constexpr int64_t kNoRenorm = 0;                   // read by softmax alone
  const RouterConfig& c = a.config;
  const Operand logits = a.logits, weights = a.weights, experts = a.experts, scores = a.scores;
  const bool by_two_best = grouped(c) && c.group_score == GroupScore::kTop2Sum;
  const auto call = [&](acl::Tensor* bias) {
    aclnn::MoeGatingTopK(stream,
                         logits,
                         bias,
                         c.top_k,
                         grouped(c) ? c.groups_kept : 1,
                         grouped(c) ? c.groups : 1,
                         by_two_best ? kByTwoBest : kByMaximum,
                         kNoRenorm,
                         c.sigmoid ? kSigmoid : kSoftmax,
                         true,
                         static_cast<double>(c.scale),
                         kTiny,
                         weights,
                         experts,
                         scores);
  };
  if (a.bias.given()) return call(Operand(a.bias));
  call(nullptr);
}

/// Sets the experts of the worst groups to minus infinity.
void drop_groups(Scratch& scratch, const Operand& biased, const RouterConfig& c) {
  Stream& stream = scratch.stream();
  const int64_t tokens = biased.dim(0), size = c.experts / c.groups;
  const Operand members = biased.reshape({tokens, c.groups, size}),
                worth = scratch.take(acl::kFloat, {tokens, c.groups});
  if (c.group_score == GroupScore::kMax) {
    aclnn::Amax(stream, members, IntArray{2}, false, worth);
  } else {
    const Operand best = scratch.take(acl::kFloat, {tokens, c.groups, 2}),
                  index = scratch.take(acl::kInt64, {tokens, c.groups, 2});
    aclnn::Topk(stream, members, 2, 2, true, true, best, index);
    aclnn::ReduceSum(stream, best, IntArray{2}, false, acl::kFloat, worth);
  }
  const Operand sorted = scratch.like(worth, acl::kFloat), order = scratch.like(worth, acl::kInt64),
                rank = scratch.like(worth, acl::kInt64), dropped = scratch.like(worth, acl::kBool);
  aclnn::Sort(stream, worth, true, 1, true, sorted, order);
  aclnn::Argsort(stream, order, 1, false, rank);
  aclnn::GtScalar(stream, rank, Scalar(int64_t{c.groups_kept - 1}), dropped);
  aclnn::InplaceMaskedFillScalar(stream, members, dropped.unsqueeze(2), Scalar(-INFINITY));
}

/// The choice, best first, as int64.
Operand choose(Scratch& scratch, const RouterArgs& a) {
  Stream& stream = scratch.stream();
  const RouterConfig& c = a.config;
  const Operand scores = a.scores, biased = scratch.like(scores, acl::kFloat);
  if (a.bias.given())
    aclnn::Add(stream, scores, Operand(a.bias), Scalar(1.0f), biased);
  else
    aclnn::InplaceCopy(stream, biased, scores);
  if (grouped(c)) drop_groups(scratch, biased, c);
  const Operand sorted = scratch.like(biased, acl::kFloat),
                order = scratch.like(biased, acl::kInt64);
  aclnn::Sort(stream, biased, true, 1, true, sorted, order);
  const Operand best = order.slice(1, 0, c.top_k);
  aclnn::InplaceCopy(stream, Operand(a.experts), best);
  return best;
}

/// Experts with 0 for those that do not exist, and where those are.
struct Existing {
  Operand index;    // int64 [tokens, top_k]
  Operand missing;  // bool
};

Existing existing(Scratch& scratch, const Operand& experts, int64_t count) {
  Stream& stream = scratch.stream();
  const Operand index = scratch.like(experts, acl::kInt64),
                opposite = scratch.like(experts, acl::kInt64),
                mask = scratch.like(experts, acl::kBool),
                missing = scratch.like(experts, acl::kBool);
  aclnn::Cast(stream, experts, acl::kInt64, index);
  aclnn::Neg(stream, index, opposite);
  aclnn::GtScalar(stream, opposite, Scalar(int64_t{0}), mask);
  aclnn::InplaceMaskedFillScalar(stream, index, mask, Scalar(count));
  aclnn::GtScalar(stream, index, Scalar(count - 1), missing);
  aclnn::InplaceMaskedFillScalar(stream, index, missing, Scalar(int64_t{0}));
  return {index, missing};
}

/// Scores of the experts; 0 for those that do not exist.
Operand scores_of(Scratch& scratch, const Operand& scores, const Existing& experts) {
  const Operand chosen = scratch.like(experts.index, acl::kFloat);
  aclnn::Gather(scratch.stream(), scores, 1, experts.index, chosen);
  aclnn::InplaceMaskedFillScalar(scratch.stream(), chosen, experts.missing, Scalar(0.0f));
  return chosen;
}

/// The sum of the chosen scores, as the weights are divided by it: [tokens, 1].
Operand denominator(Scratch& scratch, const Operand& chosen) {
  const Operand sum = scratch.take(acl::kFloat, {chosen.dim(0), 1}),
                safe = scratch.take(acl::kFloat, {chosen.dim(0), 1});
  aclnn::ReduceSum(scratch.stream(), chosen, IntArray{1}, true, acl::kFloat, sum);
  aclnn::Adds(scratch.stream(), sum, Scalar(static_cast<float>(kTiny)), Scalar(1.0f), safe);
  return safe;
}

void composed_forward(const RouterArgs& a, Stream& stream) {
  Scratch scratch(stream);
  const RouterConfig& c = a.config;
  const Operand logits = a.logits, scores = a.scores, weights = a.weights;
  if (c.sigmoid)
    aclnn::Sigmoid(stream, logits, scores);
  else
    aclnn::Softmax(stream, logits, 1, scores);
  const Existing experts =
      existing(scratch, a.given.given() ? Operand(a.given) : choose(scratch, a), c.experts);
  const Operand chosen = scores_of(scratch, scores, experts);
  const Operand shares = c.normalize ? scratch.like(chosen, acl::kFloat) : chosen;
  if (c.normalize) aclnn::Div(stream, chosen, denominator(scratch, chosen), shares);
  aclnn::Muls(stream, shares, Scalar(c.scale), weights);
}

/// What the weights' gradients give to those of the scores, [tokens, experts]: with n_j = s_j /
/// sum, scale / sum * (d_w_j - sum_i d_w_i n_i) if normalised, scale * d_w_j if not.
Operand weigh_backward(Scratch& scratch, const RouterBackwardArgs& a) {
  Stream& stream = scratch.stream();
  const RouterConfig& c = a.config;
  const Operand scores = a.scores, d_weights = a.d_weights;
  const Existing experts = existing(scratch, a.experts, c.experts);
  const Operand d = scratch.like(d_weights, acl::kFloat);
  aclnn::Muls(stream, d_weights, Scalar(c.scale), d);
  if (c.normalize) {
    const Operand chosen = scores_of(scratch, scores, experts), sum = denominator(scratch, chosen),
                  shares = scratch.like(chosen, acl::kFloat),
                  mean = scratch.take(acl::kFloat, {d.dim(0), 1});
    aclnn::Div(stream, chosen, sum, shares);
    aclnn::InplaceMul(stream, shares, d);
    aclnn::ReduceSum(stream, shares, IntArray{1}, true, acl::kFloat, mean);
    aclnn::Sub(stream, d, mean, Scalar(1.0f), d);
    aclnn::Div(stream, d, sum, d);
  }
  aclnn::InplaceMaskedFillScalar(stream, d, experts.missing, Scalar(0.0f));
  const Operand zero = scratch.like(scores, acl::kFloat), sums = scratch.like(scores, acl::kFloat);
  aclnn::InplaceZero(stream, zero);
  aclnn::ScatterAdd(stream, zero, 1, experts.index, d, sums);
  return sums;
}

}  // namespace

void router_forward(const Plan&, const RouterArgs& a, void*, Stream& stream) {
  if (a.logits.shape[0] == 0) return;
  if (fused(a)) return fused_forward(a, stream);
  composed_forward(a, stream);
}

void router_backward(const Plan&, const RouterBackwardArgs& a, void*, Stream& stream) {
  if (a.scores.shape[0] == 0) return;
  Scratch scratch(stream);
  const Operand scores = a.scores, d_logits = a.d_logits;
  const Operand d =
      a.d_weights.given() ? weigh_backward(scratch, a) : scratch.like(scores, acl::kFloat);
  if (!a.d_weights.given()) aclnn::InplaceZero(stream, d);
  if (a.d_scores.given()) aclnn::InplaceAdd(stream, d, Operand(a.d_scores), Scalar(1.0f));
  if (a.config.sigmoid)
    aclnn::SigmoidBackward(stream, d, scores, d_logits);
  else
    aclnn::SoftmaxBackward(stream, d, scores, 1, d_logits);
}

}  // namespace ferry::ops::ascend
