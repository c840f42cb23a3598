// Sixteen lanes for each row: a pass for the sum, then a look at each id.
#include "ops/cuda/device_log_sum_exp.h"
#include "ops/token_log_probs/token_log_probs_cuda.h"

namespace ferry::ops {

extern "C" __global__ void token_log_probs(const TokenLogProbsCuda c) {
  // Rows that are not there look at the last one, so that the whole warp stays together.
  const int64_t row = lanes_row(), r = row < c.rows ? row : c.rows - 1;
  const float* const x = c.logits + r * c.vocab;
  const float temperature = c.temperatures[r];
  // x / t grows with x, so the largest is the largest's quotient.
  const float m = row_max(x, c.vocab) / temperature;
  const float sum = sum_exp(
      c.vocab, [&](int64_t i) { return x[i] / temperature - m; }, [](int64_t, float) {});
  const float log_sum = log(sum);
  if (row >= c.rows) return;
  for (int64_t i = lane(); i < c.k; i += kLanes) {
    const int32_t id = c.ids[r * c.k + i];
    float y = __uint_as_float(0x7FFFFFFFu);  // NaN
    if (id == -1)
      y = 0;
    else if (temperature > 0 && id >= 0 && id < c.vocab)
      y = -(log_sum + (m - x[id] / temperature));
    c.y[r * c.k + i] = y;
  }
}

}  // namespace ferry::ops
