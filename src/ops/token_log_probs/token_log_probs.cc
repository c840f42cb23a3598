// Checks and kernel table of token_log_probs.
#include "ops/token_log_probs/token_log_probs.h"

#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/token_log_probs/token_log_probs_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(TokenLogProbsArgs, token_log_probs)

const KernelTable<TokenLogProbsArgs> kTokenLogProbs{
    .op = "token_log_probs",
    .cpu = CPU_KERNEL(TokenLogProbsArgs, token_log_probs),
    .cuda = CUDA_KERNEL(TokenLogProbsArgs, token_log_probs),
    .ascend = ASCEND_KERNEL(TokenLogProbsArgs, Branch::kComposed, token_log_probs),
};

Tensor token_log_probs(const Tensor& logits, const Tensor& ids, const Tensor& temperatures) {
  check(logits.rank() == 2 && logits.dtype() == DType::kF32 && logits.contiguous() &&
            logits.dim(1) > 0,
        "token_log_probs: logits {} {}",
        to_string(logits.dtype()),
        logits.shape().str());
  check(ids.rank() == 2 && ids.dim(0) == logits.dim(0) && ids.dtype() == DType::kI32,
        "token_log_probs: ids {} {} of logits {}",
        to_string(ids.dtype()),
        ids.shape().str(),
        logits.shape().str());
  check(temperatures.rank() == 1 && temperatures.dim(0) == logits.dim(0) &&
            temperatures.dtype() == DType::kF32,
        "token_log_probs: temperatures {} {} of logits {}",
        to_string(temperatures.dtype()),
        temperatures.shape().str(),
        logits.shape().str());
  Tensor y = Tensor::empty(ids.shape(), DType::kF32, logits.device());
  dispatch(kTokenLogProbs,
           TokenLogProbsArgs{logits.view(), ids.view(), temperatures.view(), y.view()},
           logits.device());
  return y;
}

}  // namespace ferry::ops
