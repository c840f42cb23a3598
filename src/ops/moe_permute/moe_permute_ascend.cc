// The plan is a stable sort of slots by expert; rows move through the vendor's permute and combine
// ops. A slot without an expert here is -1 in the plan. Permute's op takes no such number, so these
// slots are sorted behind all others and their rows cleared; combine's op skips them in its mode
// for experts of fixed capacity, where each row of x counts as an expert of capacity 1.
#include "ops/ascend/scratch.h"
#include "ops/moe_permute/moe_permute_kernels.h"

namespace ferry::ops::ascend {
namespace {

constexpr bool kNotPadded = false;
constexpr int64_t kAllTokens = 0;       // numOutTokens
constexpr int64_t kSkipByRow = 3;       // dropPadMode: -1 is skipped, slots row by row
constexpr int64_t kSkipInGradient = 1;  // the same for the gradient op
constexpr int64_t kOneRowEach = 1;      // expertCapacity
constexpr int64_t kAllRows = 0;         // activeNum

/// Where x < 0, i32.
Operand negative(Scratch& scratch, const Operand& x) {
  const Operand opposite = scratch.like(x, acl::kInt32), mask = scratch.like(x, acl::kBool);
  aclnn::Neg(scratch.stream(), x, opposite);
  aclnn::GtScalar(scratch.stream(), opposite, Scalar(int64_t{0}), mask);
  return mask;
}

/// A copy of x with `value` where x < 0.
Operand negative_as(Scratch& scratch, const Operand& x, int64_t value) {
  const Operand y = scratch.like(x, acl::kInt32);
  aclnn::InplaceCopy(scratch.stream(), y, x);
  aclnn::InplaceMaskedFillScalar(scratch.stream(), y, negative(scratch, x), Scalar(value));
  return y;
}

/// Where x is no expert's number, once negative numbers were made `experts`.
Operand outside(Scratch& scratch, const Operand& x, int64_t experts) {
  const Operand mask = scratch.like(x, acl::kBool);
  aclnn::GtScalar(scratch.stream(), x, Scalar(experts - 1), mask);
  return mask;
}

}  // namespace

void plan_experts(const Plan&, const PlanExpertsArgs& a, void*, Stream& stream) {
  const int64_t tokens = a.chosen.shape[0], top_k = a.chosen.shape[1], slots = tokens * top_k,
                experts = a.offsets.shape[0] - 1;
  const Operand offsets = a.offsets;
  if (slots == 0) return aclnn::InplaceZero(stream, offsets);
  Scratch scratch(stream);
  const Operand expert = negative_as(scratch, Operand(a.chosen).reshape({slots}), experts);
  const Operand nobody = outside(scratch, expert, experts);
  aclnn::InplaceMaskedFillScalar(stream, expert, nobody, Scalar(experts));

  // offsets[e] counts the slots of experts below e: each slot is counted one place further on.
  const Operand place = scratch.take(acl::kInt32, {slots}),
                one = scratch.take(acl::kInt32, {slots}),
                zero = scratch.take(acl::kInt32, {experts + 2}),
                counts = scratch.take(acl::kInt32, {experts + 2});
  aclnn::Adds(stream, expert, Scalar(int64_t{1}), Scalar(int64_t{1}), place);
  aclnn::InplaceFillScalar(stream, one, Scalar(int64_t{1}));
  aclnn::InplaceZero(stream, zero);
  aclnn::IndexAdd(stream, zero, 0, place, one, Scalar(int64_t{1}), counts);
  aclnn::Cumsum(stream, counts.slice(0, 0, experts + 1), 0, acl::kInt32, offsets);

  const Operand expert_of_row = scratch.take(acl::kInt32, {slots}),
                slot_of_row = scratch.take(acl::kInt64, {slots}),
                row = scratch.take(acl::kInt64, {slots});
  aclnn::Sort(stream, expert, true, 0, false, expert_of_row, slot_of_row);
  aclnn::Argsort(stream, slot_of_row, 0, false, row);
  const Operand row_of_slot = Operand(a.row_of_slot).reshape({slots}),
                token_of_row = a.token_of_row;
  aclnn::Cast(stream, row, acl::kInt32, row_of_slot);
  aclnn::InplaceMaskedFillScalar(stream, row_of_slot, nobody, Scalar(int64_t{-1}));

  const Operand token = scratch.take(acl::kInt32, {tokens, 1}),
                token_of_slot = scratch.take(acl::kInt32, {tokens, top_k});
  aclnn::Arange(
      stream, Scalar(int64_t{0}), Scalar(tokens), Scalar(int64_t{1}), token.reshape({tokens}));
  aclnn::InplaceCopy(stream, token_of_slot, token.expand(1, top_k));
  aclnn::IndexSelect(stream, token_of_slot.reshape({slots}), 0, slot_of_row, token_of_row);
  aclnn::InplaceMaskedFillScalar(
      stream, token_of_row, outside(scratch, expert_of_row, experts), Scalar(int64_t{-1}));
}

void permute(const Plan&, const PermuteArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  Scratch scratch(stream);
  const int64_t slots = a.y.shape[0];
  const Operand order = negative_as(scratch, a.row_of_slot, slots),
                sorted = scratch.take(acl::kInt32, {slots});
  const Operand x = a.x, y = a.y;
  aclnn::MoeTokenPermute(stream, x, order, kAllTokens, kNotPadded, y, sorted);
  aclnn::InplaceMaskedFillScalar(
      stream, y, negative(scratch, a.token_of_row).unsqueeze(1), Scalar(0.0f));
}

void combine(const Plan&, const CombineArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  Scratch scratch(stream);
  const int64_t tokens = a.row_of_slot.shape[0], top_k = a.row_of_slot.shape[1];
  const Operand weights =
      a.weights.given() ? Operand(a.weights) : scratch.take(acl::kFloat, {tokens, top_k});
  if (!a.weights.given()) aclnn::InplaceFillScalar(stream, weights, Scalar(1.0f));
  const Operand y = a.y;
  aclnn::MoeFinalizeRoutingV2(stream,
                              Operand(a.x).unsqueeze(1),
                              Operand(a.row_of_slot).reshape({tokens * top_k}),
                              nullptr,  // x1
                              nullptr,  // x2
                              nullptr,  // bias
                              weights,
                              nullptr,  // expertIdx
                              kSkipByRow,
                              y);
}

// The gradient op wants all alike: bf16 is widened rather than the weights rounded.
void combine_backward(const Plan&, const CombineBackwardArgs& a, void*, Stream& stream) {
  if (a.d_x.count() == 0) return;
  Scratch scratch(stream);
  const int64_t slots = a.d_x.shape[0];
  const Operand x = scratch.cast(a.x, acl::kFloat), d_y = scratch.cast(a.d_y, acl::kFloat);
  const Operand d_x =
      a.d_x.dtype == DType::kF32 ? Operand(a.d_x) : scratch.like(a.d_x, acl::kFloat);
  const Operand weights = a.weights, d_weights = a.d_weights, rows = a.row_of_slot;
  aclnn::InplaceZero(stream, d_x);  // rows of no slot
  aclnn::MoeFinalizeRoutingV2Grad(stream,
                                  d_y,
                                  rows.reshape({slots}),
                                  x.unsqueeze(1),
                                  weights,
                                  nullptr,  // expertIdx
                                  nullptr,  // bias
                                  kSkipInGradient,
                                  kAllRows,
                                  slots,
                                  kOneRowEach,
                                  d_x.unsqueeze(1),
                                  d_weights);
  aclnn::InplaceMaskedFillScalar(stream, d_weights, negative(scratch, rows), Scalar(0.0f));
  if (a.d_x.dtype != DType::kF32) aclnn::InplaceCopy(stream, Operand(a.d_x), d_x);
}

}  // namespace ferry::ops::ascend
