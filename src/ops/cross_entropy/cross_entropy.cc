#include "ops/cross_entropy/cross_entropy.h"

#include <algorithm>

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dequantize/dequantize.h"
#include "ops/dispatch.h"
#include "ops/matmul/rounded_weight.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(CrossEntropyArgs, cross_entropy)
DECLARE_CUDA_PLAN(CrossEntropyArgs, cross_entropy_plan)
DECLARE_CUDA_KERNEL(CrossEntropyBackwardArgs, cross_entropy_backward)

namespace {

/// Tokens whose logits take about kLogitsBytes: 64 to 1024. A multiple of 16 where there are several
/// chunks, so that the pairs of tokens that d_head contracts, and the sixteens of tensor cores, are
/// the same whatever the chunk.
int64_t chunk_tokens(int64_t tokens, int64_t vocab) {
  const int64_t fitting = kLogitsBytes / (4 * logits_stride(vocab)) / 16 * 16;
  return std::min(std::clamp<int64_t>(fitting, 64, 1024), (tokens + 1) / 2 * 2);
}

}  // namespace

const KernelTable<CrossEntropyArgs> kForward{
    .op = "cross_entropy",
    .cpu = CPU_KERNEL(CrossEntropyArgs, cross_entropy, CPU_FUNCTION(cross_entropy_plan)),
    .cuda = CUDA_KERNEL(CrossEntropyArgs, cross_entropy, cross_entropy_plan),
    .ascend = ASCEND_KERNEL(CrossEntropyArgs, Branch::kComposed, cross_entropy),
};

const KernelTable<CrossEntropyBackwardArgs> kBackward{
    .op = "cross_entropy_backward",
    .cpu = CPU_KERNEL(CrossEntropyBackwardArgs, cross_entropy_backward),
    .cuda = CUDA_KERNEL(CrossEntropyBackwardArgs, cross_entropy_backward),
    .ascend = ASCEND_KERNEL(CrossEntropyBackwardArgs, Branch::kFused, cross_entropy_backward),
};

CrossEntropy cross_entropy(const Tensor& hidden,
                           const Weight& head,
                           const Tensor& labels,
                           float scale,
                           const Tensor& weights) {
  const bool codes = head.codes().has_value();
  const Tensor w = codes ? head.value : weight_values(head, hidden.dtype());
  const Shape matrix = codes ? head.global_shape : w.shape();
  check(hidden.rank() == 2 && matrix.rank() == 2 && hidden.dim(1) == matrix[1] && matrix[0] > 0,
        "cross_entropy: hidden {}, {} {}",
        hidden.shape().str(),
        head.name,
        matrix.str());
  check(labels.shape() == Shape{hidden.dim(0)} && labels.dtype() == DType::kI32 &&
            labels.contiguous(),
        "cross_entropy: labels {} {} for {} tokens",
        to_string(labels.dtype()),
        labels.shape().str(),
        hidden.dim(0));
  check(!weights.defined() || (weights.shape() == labels.shape() &&
                               weights.dtype() == DType::kF32 && weights.contiguous()),
        "cross_entropy: weights must be f32 [{}]",
        hidden.dim(0));
  check(hidden.dtype() == DType::kF32 || hidden.dtype() == DType::kBF16,
        "cross_entropy: hidden {}",
        to_string(hidden.dtype()));
  Device& device = hidden.device();
  Tape* const tape = Tape::current();
  check(tape == nullptr || !codes,
        "cross_entropy: {} holds codes, which cannot be trained",
        head.name);
  CrossEntropy result{Tensor::empty({1}, DType::kF32, device),
                      Tensor::empty({hidden.dim(0)}, DType::kF32, device)};
  Tensor d_hidden, d_head;
  if (tape != nullptr && hidden.needs_grad())
    d_hidden = Tensor::empty(hidden.shape(), hidden.dtype(), device);
  if (tape != nullptr && w.needs_grad()) d_head = Tensor::empty(w.shape(), DType::kF32, device);
  dispatch(kForward,
           {hidden.view(),
            (codes ? w : rounded_weight(head, w, hidden.dtype())).view(),
            labels.view(),
            result.token_losses.view(),
            result.loss.view(),
            d_hidden.view(),
            d_head.view(),
            scale,
            chunk_tokens(hidden.dim(0), matrix[0]),
            matrix[0],
            codes ? head.scales.view() : View{},
            weights.view(),
            head.codes().value_or(WeightCodes{})},
           device);
  if (tape == nullptr) return result;
  // The gradients are scaled in place and handed over, so each closure can be played once.
  const auto hand_over = [loss = result.loss.without_memory()](const Tensor& to,
                                                               const Tensor& gradient) {
    return [loss, to = to.without_memory(), gradient](Grads& grads) {
      if (!gradient.defined()) return;
      dispatch(kBackward, {grads.of(loss).view(), gradient.view()}, gradient.device());
      grads.add(to, gradient);
    };
  };
  tape->record("cross_entropy",
               {hidden, w},
               {result.loss},
               hand_over(hidden, d_hidden),
               hand_over(w, d_head));
  return result;
}

}  // namespace ferry::ops
