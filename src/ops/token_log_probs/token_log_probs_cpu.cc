// A pass over each row for the sum, then a look at each id.
#include "ops/cpu/log_sum_exp.h"
#include "ops/cpu/loops.h"
#include "ops/token_log_probs/token_log_probs_kernels.h"

namespace ferry::ops::FERRY_TIER {

void token_log_probs(const Plan&, const TokenLogProbsArgs& a, void*, Stream&) {
  const int64_t vocab = a.logits.shape[1], k = a.ids.shape[1];
  parallel_rows(a.logits.shape[0], vocab, [&](int64_t r) {
    const float* const x = a.logits.as<float>() + r * vocab;
    const float given = a.temperatures.as<float>()[r];
    const bool valid = given > 0;
    const float temperature = valid ? given : 1;  // exp is not asked for what is no number
    // x / t grows with x, so the largest is the largest's quotient.
    const float m = row_max(x, vocab) / temperature;
    const float sum = sum_exp(
        vocab,
        [&](int64_t i, int n) { return load_n(x + i, n) / splat(temperature) - splat(m); },
        [](int64_t, F32x16, int) {});
    float log_sum[kLanes];
    store(log_sum, log(splat(sum)));
    for (int64_t i = 0; i < k; ++i) {
      const int32_t id = a.ids.as<int32_t>()[r * k + i];
      float y = __builtin_nanf("");
      if (id == -1)
        y = 0;
      else if (valid && id >= 0 && id < vocab)
        y = -(log_sum[0] + (m - x[id] / temperature));
      a.y.as<float>()[r * k + i] = y;
    }
  });
}

}  // namespace ferry::ops::FERRY_TIER
