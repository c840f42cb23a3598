// The plan, a stable sort of slots by expert, is the vendor's routing op; rows move through its
// permute and combine ops. A slot without an expert here is -1 in the plan. Permute's op takes no
// such number, so these slots are sorted behind all others and their rows cleared; combine's op
// skips them in its mode for experts of fixed capacity, where each row of x counts as an expert of
// capacity 1.
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
constexpr int64_t kNoCapacity = 0;      // expertCapacity
constexpr int64_t kKeepAll = 0;         // dropPadMode of the routing op
constexpr int64_t kRunningSums = 1;     // expertTokensCountOrCumsumFlag

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

}  // namespace

// The op sorts rows of x along: given each token's number as its only feature, it answers which
// token is in which row. Slots of no expert here belong to one more expert, the last.
void plan_experts(const Plan&, const PlanExpertsArgs& a, void*, Stream& stream) {
  const int64_t tokens = a.chosen.shape[0], top_k = a.chosen.shape[1], slots = tokens * top_k,
                experts = a.offsets.shape[0] - 1;
  const Operand offsets = a.offsets, token_of_row = a.token_of_row;
  aclnn::InplaceZero(stream, offsets);
  if (slots == 0) return;
  Scratch scratch(stream);
  const Operand expert = negative_as(scratch, a.chosen, experts),
                nobody = scratch.like(expert, acl::kBool),
                number = scratch.take(acl::kFloat, {tokens}),
                number_of_row = scratch.take(acl::kFloat, {slots, 1}),
                ends = scratch.take(acl::kInt32, {experts + 1});
  aclnn::GtScalar(stream, expert, Scalar(experts - 1), nobody);
  aclnn::InplaceMaskedFillScalar(stream, expert, nobody, Scalar(experts));
  aclnn::Arange(stream, Scalar(0.0f), Scalar(static_cast<float>(tokens)), Scalar(1.0f), number);
  const Operand row_of_slot = a.row_of_slot;
  aclnn::MoeInitRoutingV2(stream,
                          number.unsqueeze(1),
                          expert,
                          kAllRows,
                          kNoCapacity,
                          experts + 1,
                          kKeepAll,
                          kRunningSums,
                          false,
                          number_of_row,
                          row_of_slot.reshape({slots}),
                          ends,
                          nullptr);  // expertTokensBeforeCapacity
  aclnn::InplaceCopy(stream, offsets.slice(0, 1, experts + 1), ends.slice(0, 0, experts));
  aclnn::Cast(stream, number_of_row.reshape({slots}), acl::kInt32, token_of_row);
  // Without a row: slots of nobody, and the rows behind the last expert's.
  aclnn::InplaceMaskedFillScalar(stream, row_of_slot, nobody, Scalar(int64_t{-1}));
  const Operand row = scratch.take(acl::kInt32, {slots}), used = scratch.take(acl::kBool, {slots}),
                none = scratch.take(acl::kInt32, {1}), known = scratch.like(row, acl::kInt32);
  aclnn::Arange(stream, Scalar(int64_t{0}), Scalar(slots), Scalar(int64_t{1}), row);
  aclnn::LtTensor(stream, row, offsets.slice(0, experts, experts + 1), used);
  aclnn::InplaceFillScalar(stream, none, Scalar(int64_t{-1}));
  aclnn::SWhere(stream, used, token_of_row, none, known);
  aclnn::InplaceCopy(stream, token_of_row, known);
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
