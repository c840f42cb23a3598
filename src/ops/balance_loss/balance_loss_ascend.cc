// Sums over documents and experts are index_adds: the documents of tokens are found on the device,
// from their positions.
#include "ops/ascend/scratch.h"
#include "ops/balance_loss/balance_loss_kernels.h"

namespace ferry::ops::ascend {
namespace {

constexpr float kTiny = 1e-20f;  // sigmoid scores may all be zero

Operand filled(Scratch& scratch,
               acl::DataType type,
               std::initializer_list<int64_t> shape,
               int64_t value) {
  const Operand x = scratch.take(type, shape);
  aclnn::InplaceFillScalar(scratch.stream(), x, Scalar(value));
  return x;
}

/// zeros[shape] with source added at the rows that `index` names.
Operand index_sum(Scratch& scratch,
                  std::initializer_list<int64_t> shape,
                  const Operand& index,
                  const Operand& source) {
  const Operand zero = filled(scratch, source.type(), shape, 0),
                sum = scratch.take(source.type(), shape);
  aclnn::IndexAdd(scratch.stream(), zero, 0, index, source, Scalar(int64_t{1}), sum);
  return sum;
}

/// i32 [slots]: the experts, and `experts` where there is no such expert.
Operand expert_or_none(Scratch& scratch, const Operand& chosen, int64_t experts) {
  Stream& stream = scratch.stream();
  const Operand expert = scratch.like(chosen, acl::kInt32),
                opposite = scratch.like(chosen, acl::kInt32),
                mask = scratch.like(chosen, acl::kBool);
  aclnn::InplaceCopy(stream, expert, chosen);
  aclnn::Neg(stream, chosen, opposite);
  aclnn::GtScalar(stream, opposite, Scalar(int64_t{0}), mask);
  aclnn::InplaceMaskedFillScalar(stream, expert, mask, Scalar(experts));
  aclnn::GtScalar(stream, expert, Scalar(experts - 1), mask);
  aclnn::InplaceMaskedFillScalar(stream, expert, mask, Scalar(experts));
  return expert;
}

/// sum_j s_j + tiny: [tokens, 1].
Operand score_sums(Scratch& scratch, const Operand& scores) {
  const Operand sum = scratch.take(acl::kFloat, {scores.dim(0), 1}),
                safe = scratch.take(acl::kFloat, {scores.dim(0), 1});
  aclnn::ReduceSum(scratch.stream(), scores, IntArray{1}, true, acl::kFloat, sum);
  aclnn::Adds(scratch.stream(), sum, Scalar(kTiny), Scalar(1.0f), safe);
  return safe;
}

/// Tokens of each document, f32 [documents, 1].
Operand lengths(Scratch& scratch, const Operand& begin) {
  const int64_t documents = begin.dim(0) - 1;
  const Operand length = scratch.take(acl::kInt32, {documents});
  aclnn::Sub(scratch.stream(),
             begin.slice(0, 1, documents + 1),
             begin.slice(0, 0, documents),
             Scalar(int64_t{1}),
             length);
  return scratch.cast(length, acl::kFloat).unsqueeze(1);
}

/// Writes `document` and `begin`.
void find_documents(Scratch& scratch, const BalanceLossArgs& a) {
  Stream& stream = scratch.stream();
  const int64_t tokens = a.scores.shape[0], documents = a.share.shape[0];
  const Operand position = a.position, begin = a.begin, document = a.document;
  const Operand starts = scratch.take(acl::kBool, {tokens}),
                number = scratch.take(acl::kInt32, {tokens});  // of the document, from 1
  aclnn::EqTensor(stream, position, filled(scratch, acl::kInt32, {1}, 0), starts);
  aclnn::Cumsum(stream, scratch.cast(starts, acl::kInt32), 0, acl::kInt32, number);
  aclnn::Adds(stream, number, Scalar(int64_t{-1}), Scalar(int64_t{1}), document);
  const Operand sizes =
      index_sum(scratch, {documents + 1}, number, filled(scratch, acl::kInt32, {tokens}, 1));
  aclnn::Cumsum(stream, sizes, 0, acl::kInt32, begin);
}

/// f32 [documents, experts]: how many of a document's slots chose an expert.
Operand counts_by_document(Scratch& scratch, const BalanceLossArgs& a) {
  Stream& stream = scratch.stream();
  const int64_t tokens = a.experts.shape[0], top_k = a.experts.shape[1],
                documents = a.share.shape[0], experts = a.share.shape[1];
  // One more column than experts takes the slots of none.
  const Operand document = a.document, first = scratch.take(acl::kInt32, {tokens, 1}),
                cell = scratch.take(acl::kInt32, {tokens, top_k});
  aclnn::Muls(stream, document.unsqueeze(1), Scalar(experts + 1), first);
  aclnn::Add(stream, expert_or_none(scratch, a.experts, experts), first, Scalar(int64_t{1}), cell);
  const Operand counts = index_sum(scratch,
                                   {documents * (experts + 1)},
                                   cell.reshape({tokens * top_k}),
                                   filled(scratch, acl::kFloat, {tokens * top_k}, 1));
  return counts.reshape({documents, experts + 1}).slice(1, 0, experts);
}

}  // namespace

void balance_loss_forward(const Plan&, const BalanceLossArgs& a, void*, Stream& stream) {
  Scratch scratch(stream);
  const int64_t top_k = a.experts.shape[1], documents = a.share.shape[0],
                experts = a.share.shape[1];
  const Operand scores = a.scores, share = a.share, loss = a.loss, document = a.document;
  find_documents(scratch, a);
  const Operand length = lengths(scratch, a.begin);
  const float even = static_cast<float>(experts) / static_cast<float>(top_k);
  const Operand scaled = scratch.like(share, acl::kFloat);
  aclnn::Muls(stream, counts_by_document(scratch, a), Scalar(even), scaled);
  aclnn::Div(stream, scaled, length, share);
  const Operand normal = scratch.like(scores, acl::kFloat);
  aclnn::Div(stream, scores, score_sums(scratch, scores), normal);
  const Operand terms = index_sum(scratch, {documents, experts}, document, normal);
  aclnn::Div(stream, terms, length, terms);
  aclnn::InplaceMul(stream, terms, share);
  aclnn::ReduceSum(stream, terms, IntArray{0, 1}, true, acl::kFloat, loss.reshape({1, 1}));
  aclnn::InplaceMuls(stream, loss, Scalar(a.alpha / static_cast<float>(documents)));
}

// With S = sum_j s_j:  d_s_i = d_loss alpha / (documents T) * (f_i - sum_j f_j s_j / S) / S.
void balance_loss_backward(const Plan&, const BalanceLossBackwardArgs& a, void*, Stream& stream) {
  Scratch scratch(stream);
  const int64_t tokens = a.scores.shape[0], documents = a.share.shape[0];
  const Operand scores = a.scores, document = a.document, d_loss = a.d_loss, d_scores = a.d_scores;
  const Operand share = scratch.like(scores, acl::kFloat),
                terms = scratch.like(scores, acl::kFloat),
                mean = scratch.take(acl::kFloat, {tokens, 1}),
                outer = scratch.take(acl::kFloat, {tokens, 1}),
                length = scratch.take(acl::kFloat, {tokens, 1});
  const Operand sum = score_sums(scratch, scores);
  aclnn::IndexSelect(stream, Operand(a.share), 0, document, share);
  aclnn::Mul(stream, share, scores, terms);
  aclnn::ReduceSum(stream, terms, IntArray{1}, true, acl::kFloat, mean);
  aclnn::Div(stream, mean, sum, mean);
  aclnn::Sub(stream, share, mean, Scalar(1.0f), d_scores);
  aclnn::IndexSelect(stream, lengths(scratch, a.begin), 0, document, length);
  aclnn::InplaceMul(stream, length, sum);
  aclnn::Div(stream, d_loss.reshape({1, 1}), length, outer);
  aclnn::InplaceMuls(stream, outer, Scalar(a.alpha / static_cast<float>(documents)));
  aclnn::InplaceMul(stream, d_scores, outer);
}

void expert_counts(const Plan&, const ExpertCountsArgs& a, void*, Stream& stream) {
  const int64_t slots = a.chosen.count(), experts = a.counts.shape[0];
  if (slots == 0) return;
  Scratch scratch(stream);
  const Operand counts = a.counts;
  const Operand sum =
      index_sum(scratch,
                {experts + 1},
                expert_or_none(scratch, Operand(a.chosen).reshape({slots}), experts),
                filled(scratch, acl::kInt32, {slots}, 1));
  aclnn::InplaceAdd(stream, counts, sum.slice(0, 0, experts), Scalar(int64_t{1}));
}

void bias_update(const Plan&, const BiasUpdateArgs& a, void*, Stream& stream) {
  Scratch scratch(stream);
  const int64_t experts = a.counts.shape[0];
  const Operand bias = a.bias;
  // experts * (mean - count), in int64: what is above 0 is below the mean.
  const Operand counts = scratch.cast(a.counts, acl::kInt64), sum = scratch.take(acl::kInt64, {1}),
                multiple = scratch.like(counts, acl::kInt64),
                below = scratch.like(counts, acl::kInt64),
                above = scratch.like(counts, acl::kInt64),
                is_below = scratch.like(counts, acl::kBool),
                is_above = scratch.like(counts, acl::kBool);
  aclnn::ReduceSum(stream, counts, IntArray{0}, true, acl::kInt64, sum);
  aclnn::Muls(stream, counts, Scalar(experts), multiple);
  aclnn::Sub(stream, sum, multiple, Scalar(int64_t{1}), below);
  aclnn::Neg(stream, below, above);
  aclnn::GtScalar(stream, below, Scalar(int64_t{0}), is_below);
  aclnn::GtScalar(stream, above, Scalar(int64_t{0}), is_above);
  aclnn::InplaceAdd(stream, bias, scratch.cast(is_below, acl::kFloat), Scalar(a.gamma));
  aclnn::InplaceAdd(stream, bias, scratch.cast(is_above, acl::kFloat), Scalar(-a.gamma));
}

}  // namespace ferry::ops::ascend
