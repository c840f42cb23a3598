// Checks, kernel table and gradient of router.
#include "ops/router/router.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/router/router_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(RouterArgs, router_forward)
DECLARE_CUDA_PLAN(RouterArgs, router_plan)
DECLARE_CUDA_KERNEL(RouterBackwardArgs, router_backward)

const KernelTable<RouterArgs> kForward{
    .op = "router",
    .cpu = CPU_KERNEL(RouterArgs, router_forward),
    .cuda = CUDA_KERNEL(RouterArgs, router_forward, router_plan),
    .ascend = ASCEND_KERNEL(RouterArgs, Branch::kEither, router_forward),
};

const KernelTable<RouterBackwardArgs> kBackward{
    .op = "router_backward",
    .cpu = CPU_KERNEL(RouterBackwardArgs, router_backward),
    .cuda = CUDA_KERNEL(RouterBackwardArgs, router_backward),
    .ascend = ASCEND_KERNEL(RouterBackwardArgs, Branch::kComposed, router_backward),
};

namespace {

void check_config(const RouterConfig& c) {
  const char* problem = problem_of(c);
  check(problem == nullptr,
        "router: {} (top {} of {} experts, {} of {} groups)",
        problem == nullptr ? "" : problem,
        c.top_k,
        c.experts,
        c.groups_kept,
        c.groups);
}

void check_inputs(const Tensor& logits,
                  const Tensor& bias,
                  const RouterConfig& c,
                  const Tensor& given) {
  check(logits.rank() == 2 && logits.dim(1) == c.experts && logits.dtype() == DType::kF32,
        "router: logits {} in {} for {} experts",
        logits.shape().str(),
        to_string(logits.dtype()),
        c.experts);
  if (bias.defined())
    check(bias.rank() == 1 && bias.dim(0) == c.experts && bias.dtype() == DType::kF32,
          "router: bias {} in {} for {} experts",
          bias.shape().str(),
          to_string(bias.dtype()),
          c.experts);
  if (given.defined())
    check(given.shape() == Shape({logits.dim(0), c.top_k}) && given.dtype() == DType::kI32 &&
              given.contiguous(),
          "router: given experts {} in {} for {} tokens, top {}",
          given.shape().str(),
          to_string(given.dtype()),
          logits.dim(0),
          c.top_k);
}

}  // namespace

Routing route(const Tensor& logits,
              const Tensor& bias,
              const RouterConfig& config,
              const Tensor& given_experts) {
  check_config(config);
  check_inputs(logits, bias, config, given_experts);
  const int64_t tokens = logits.dim(0);
  Device& device = logits.device();
  Routing r;
  r.weights = Tensor::empty({tokens, config.top_k}, DType::kF32, device);
  r.scores = Tensor::empty({tokens, config.experts}, DType::kF32, device);
  Tensor chosen;
  if (!given_experts.defined()) chosen = Tensor::empty({tokens, config.top_k}, DType::kI32, device);
  dispatch(kForward,
           RouterArgs{logits.view(),
                      bias.view(),
                      given_experts.view(),
                      chosen.view(),
                      r.weights.view(),
                      r.scores.view(),
                      config},
           device);
  r.experts = chosen.defined() ? chosen : given_experts;
  if (Tape* tape = Tape::current())
    tape->record("router",
                 {logits},
                 {r.weights, r.scores},
                 [logits = logits.without_memory(),
                  weights = r.weights.without_memory(),
                  scores = r.scores,
                  experts = r.experts,
                  config](Grads& grads) {
                   const Tensor d_weights = grads.has(weights) ? grads.of(weights) : Tensor();
                   const Tensor d_scores = grads.has(scores) ? grads.of(scores) : Tensor();
                   Tensor d_logits = Tensor::empty(logits.shape(), DType::kF32, logits.device());
                   dispatch(kBackward,
                            RouterBackwardArgs{scores.view(),
                                               experts.view(),
                                               d_weights.view(),
                                               d_scores.view(),
                                               d_logits.view(),
                                               config},
                            logits.device());
                   grads.add(logits, d_logits);
                 });
  return r;
}

}  // namespace ferry::ops
