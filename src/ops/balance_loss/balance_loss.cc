// Checks, kernel tables and gradient of balance_loss and its companions.
#include "ops/balance_loss/balance_loss.h"

#include <algorithm>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/balance_loss/balance_loss_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(BalanceLossArgs, balance_loss_forward)
DECLARE_CUDA_PLAN(BalanceLossArgs, balance_loss_plan)
DECLARE_CUDA_KERNEL(BalanceLossBackwardArgs, balance_loss_backward)
DECLARE_CUDA_KERNEL(ExpertCountsArgs, expert_counts)
DECLARE_CUDA_KERNEL(BiasUpdateArgs, bias_update)

namespace {

Plan plan_forward(const BalanceLossArgs& a) {
  return {.workspace_bytes =
              static_cast<size_t>(a.share.shape[0]) * sizeof(float)};  // each document's loss
}

}  // namespace

const KernelTable<BalanceLossArgs> kForward{
    .op = "balance_loss",
    .cpu = CPU_KERNEL(BalanceLossArgs, balance_loss_forward, plan_forward),
    .cuda = CUDA_KERNEL(BalanceLossArgs, balance_loss_forward, balance_loss_plan),
    .ascend = ASCEND_KERNEL(BalanceLossArgs, Branch::kComposed, balance_loss_forward),
};

const KernelTable<BalanceLossBackwardArgs> kBackward{
    .op = "balance_loss_backward",
    .cpu = CPU_KERNEL(BalanceLossBackwardArgs, balance_loss_backward),
    .cuda = CUDA_KERNEL(BalanceLossBackwardArgs, balance_loss_backward),
    .ascend = ASCEND_KERNEL(BalanceLossBackwardArgs, Branch::kComposed, balance_loss_backward),
};

const KernelTable<ExpertCountsArgs> kCounts{
    .op = "expert_counts",
    .cpu = CPU_KERNEL(ExpertCountsArgs, expert_counts),
    .cuda = CUDA_KERNEL(ExpertCountsArgs, expert_counts),
    .ascend = ASCEND_KERNEL(ExpertCountsArgs, Branch::kComposed, expert_counts),
};

const KernelTable<BiasUpdateArgs> kBiasUpdate{
    .op = "bias_update",
    .cpu = CPU_KERNEL(BiasUpdateArgs, bias_update),
    .cuda = CUDA_KERNEL(BiasUpdateArgs, bias_update),
    .ascend = ASCEND_KERNEL(BiasUpdateArgs, Branch::kComposed, bias_update),
};

Tensor balance_loss(const Routing& routing, const Segments& segments, float alpha) {
  const Tensor& scores = routing.scores;
  const Tensor& experts = routing.experts;
  check(scores.rank() == 2 && experts.rank() == 2 && scores.dim(0) == experts.dim(0) &&
            scores.contiguous() && experts.contiguous() && scores.dim(1) <= kExpertsMax,
        "balance_loss: scores {}, experts {}",
        scores.shape().str(),
        experts.shape().str());
  check(scores.dtype() == DType::kF32 && experts.dtype() == DType::kI32,
        "balance_loss: scores are {}, experts {}",
        to_string(scores.dtype()),
        to_string(experts.dtype()));
  check(segments.tokens() == scores.dim(0) && segments.tokens() > 0,
        "balance_loss: {} tokens, documents of {}",
        scores.dim(0),
        segments.tokens());
  check(segments.host->position.front() == 0,
        "balance_loss: the first document starts at position {}",
        segments.host->position.front());
  Device& device = scores.device();
  const int64_t documents =
      std::count(segments.host->position.begin(), segments.host->position.end(), 0);
  Tensor begin = Tensor::empty({documents + 1}, DType::kI32, device);
  Tensor document = Tensor::empty({scores.dim(0)}, DType::kI32, device);
  Tensor share = Tensor::empty({documents, scores.dim(1)}, DType::kF32, device);
  Tensor loss = Tensor::empty({1}, DType::kF32, device);
  dispatch(kForward,
           BalanceLossArgs{scores.view(),
                           experts.view(),
                           segments.position.view(),
                           begin.view(),
                           document.view(),
                           share.view(),
                           loss.view(),
                           alpha},
           device);
  if (Tape* tape = Tape::current())
    tape->record(
        "balance_loss",
        {scores},
        {loss},
        [scores, begin, document, share, loss = loss.without_memory(), alpha](Grads& grads) {
          Tensor d_scores = Tensor::empty(scores.shape(), DType::kF32, scores.device());
          dispatch(kBackward,
                   BalanceLossBackwardArgs{scores.view(),
                                           begin.view(),
                                           document.view(),
                                           share.view(),
                                           grads.of(loss).view(),
                                           d_scores.view(),
                                           alpha},
                   scores.device());
          grads.add(scores, d_scores);
        });
  return loss;
}

Tensor expert_counts(const Tensor& chosen, int experts) {
  Tensor counts = Tensor::zeros({experts}, DType::kI32, chosen.device());
  add_expert_counts(chosen, counts);
  return counts;
}

void add_expert_counts(const Tensor& chosen, const Tensor& counts) {
  check(chosen.dtype() == DType::kI32 && chosen.contiguous() && counts.dtype() == DType::kI32 &&
            counts.rank() == 1,
        "expert_counts: chosen {} in {}, counts {} in {}",
        chosen.shape().str(),
        to_string(chosen.dtype()),
        counts.shape().str(),
        to_string(counts.dtype()));
  dispatch(kCounts, ExpertCountsArgs{chosen.view(), counts.view()}, chosen.device());
}

void bias_update(Weight& bias, const Tensor& counts, float gamma) {
  const Tensor& b = bias.value;
  check(b.rank() == 1 && b.shape() == counts.shape() && b.dtype() == DType::kF32 &&
            counts.dtype() == DType::kI32,
        "bias_update: {} {} in {}, counts {} in {}",
        bias.name,
        b.shape().str(),
        to_string(b.dtype()),
        counts.shape().str(),
        to_string(counts.dtype()));
  dispatch(kBiasUpdate, BiasUpdateArgs{counts.view(), b.view(), gamma}, b.device());
  bias.changed();
}

}  // namespace ferry::ops
