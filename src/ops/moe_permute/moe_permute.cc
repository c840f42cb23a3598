// Checks, kernel tables and gradients of permute and combine.
#include "ops/moe_permute/moe_permute.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/moe_permute/moe_permute_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(PlanExpertsArgs, plan_experts)
DECLARE_CUDA_KERNEL(PermuteArgs, permute)
DECLARE_CUDA_KERNEL(CombineArgs, combine)
DECLARE_CUDA_KERNEL(CombineBackwardArgs, combine_backward)

namespace {

Plan plan_sort(const PlanExpertsArgs& a) {
  return {.workspace_bytes = static_cast<size_t>(a.offsets.shape[0]) * sizeof(int32_t)};
}

}  // namespace

const KernelTable<PlanExpertsArgs> kPlan{
    .op = "plan_experts",
    .cpu = CPU_KERNEL(PlanExpertsArgs, plan_experts, plan_sort),
    .cuda = CUDA_KERNEL(PlanExpertsArgs, plan_experts),
    .ascend = ASCEND_KERNEL(PlanExpertsArgs, Branch::kFused, plan_experts),
};

const KernelTable<PermuteArgs> kPermute{
    .op = "permute",
    .cpu = CPU_KERNEL(PermuteArgs, permute),
    .cuda = CUDA_KERNEL(PermuteArgs, permute),
    .ascend = ASCEND_KERNEL(PermuteArgs, Branch::kFused, permute),
};

const KernelTable<CombineArgs> kCombine{
    .op = "combine",
    .cpu = CPU_KERNEL(CombineArgs, combine),
    .cuda = CUDA_KERNEL(CombineArgs, combine),
    .ascend = ASCEND_KERNEL(CombineArgs, Branch::kFused, combine),
};

const KernelTable<CombineBackwardArgs> kCombineBackward{
    .op = "combine_backward",
    .cpu = CPU_KERNEL(CombineBackwardArgs, combine_backward),
    .cuda = CUDA_KERNEL(CombineBackwardArgs, combine_backward),
    .ascend = ASCEND_KERNEL(CombineBackwardArgs, Branch::kFused, combine_backward),
};

namespace {

void check_rows(const char* op, const Tensor& x, int64_t rows) {
  check(
      x.rank() == 2 && x.dim(0) == rows && (x.dtype() == DType::kF32 || x.dtype() == DType::kBF16),
      "{}: x {} in {}, the plan has {} rows",
      op,
      x.shape().str(),
      to_string(x.dtype()),
      rows);
}

}  // namespace

ExpertPlan plan_experts(const Tensor& chosen, int experts) {
  check(chosen.rank() == 2 && chosen.dtype() == DType::kI32 && chosen.contiguous(),
        "plan_experts: chosen {} in {}",
        chosen.shape().str(),
        to_string(chosen.dtype()));
  check(experts >= 1, "plan_experts: {} experts", experts);
  check(chosen.count() <= INT32_MAX,
        "plan_experts: {} chosen experts; rows are numbered in 32 bits",
        chosen.count());
  Device& device = chosen.device();
  ExpertPlan plan;
  plan.offsets = Tensor::empty({experts + 1}, DType::kI32, device);
  plan.row_of_slot = Tensor::empty(chosen.shape(), DType::kI32, device);
  plan.token_of_row = Tensor::empty({chosen.count()}, DType::kI32, device);
  dispatch(
      kPlan,
      PlanExpertsArgs{
          chosen.view(), plan.offsets.view(), plan.row_of_slot.view(), plan.token_of_row.view()},
      device);
  return plan;
}

namespace {

Tensor permuted(const Tensor& x, const ExpertPlan& plan) {
  Tensor y = Tensor::empty({plan.token_of_row.dim(0), x.dim(1)}, x.dtype(), x.device());
  dispatch(kPermute,
           PermuteArgs{x.view(), plan.token_of_row.view(), plan.row_of_slot.view(), y.view()},
           x.device());
  return y;
}

}  // namespace

Tensor permute(const Tensor& x, const ExpertPlan& plan) {
  check_rows("permute", x, plan.row_of_slot.dim(0));
  Tensor y = permuted(x, plan);
  if (Tape* tape = Tape::current()) {
    tape->makes_again(y, [x = x.saved(), plan] { return permuted(x.restored(), plan); });
    tape->record(
        "permute",
        {x},
        {y},
        [x = x.without_memory(), y = y.without_memory(), rows = plan.row_of_slot](Grads& grads) {
          Tensor d_x = Tensor::empty(x.shape(), x.dtype(), x.device());
          dispatch(
              kCombine, CombineArgs{grads.of(y).view(), {}, rows.view(), d_x.view()}, x.device());
          grads.add(x, d_x);
        });
  }
  return y;
}

Tensor combine(const Tensor& x, const Tensor& weights, const ExpertPlan& plan) {
  check_rows("combine", x, plan.token_of_row.dim(0));
  check(weights.shape() == plan.row_of_slot.shape() && weights.dtype() == DType::kF32 &&
            weights.contiguous(),
        "combine: weights {} in {}, the plan has slots {}",
        weights.shape().str(),
        to_string(weights.dtype()),
        plan.row_of_slot.shape().str());
  Tensor y = Tensor::empty({weights.dim(0), x.dim(1)}, x.dtype(), x.device());
  dispatch(kCombine,
           CombineArgs{x.view(), weights.view(), plan.row_of_slot.view(), y.view()},
           x.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "combine", {x, weights}, {y}, [x, weights, plan, y = y.without_memory()](Grads& grads) {
          Tensor d_x = Tensor::empty(x.shape(), x.dtype(), x.device());
          Tensor d_weights = Tensor::empty(weights.shape(), DType::kF32, x.device());
          dispatch(kCombineBackward,
                   CombineBackwardArgs{x.view(),
                                       weights.view(),
                                       plan.row_of_slot.view(),
                                       plan.offsets.view(),
                                       grads.of(y).view(),
                                       d_x.view(),
                                       d_weights.view()},
                   x.device());
          grads.add(x, d_x);
          grads.add(weights, d_weights);
        });
  return y;
}

}  // namespace ferry::ops
