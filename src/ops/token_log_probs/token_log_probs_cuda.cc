// One kernel.
#include "ops/token_log_probs/token_log_probs_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/token_log_probs/token_log_probs_kernels.h"

namespace ferry::ops::cuda {

void token_log_probs(const Plan&, const TokenLogProbsArgs& a, void*, Stream& stream) {
  static const Code code("token_log_probs");
  if (a.y.count() == 0) return;
  const TokenLogProbsCuda args{.logits = a.logits.as<float>(),
                               .ids = a.ids.as<int32_t>(),
                               .temperatures = a.temperatures.as<float>(),
                               .y = a.y.as<float>(),
                               .rows = a.logits.shape[0],
                               .vocab = a.logits.shape[1],
                               .k = a.ids.shape[1]};
  code.launch(stream, "token_log_probs", rows_grid(args.rows), kRowsBlock, args);
}

}  // namespace ferry::ops::cuda
