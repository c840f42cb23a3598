#include "ops/token_log_probs/token_log_probs_reference.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"

namespace ferry::ops {

RefTensor token_log_probs_reference(const RefTensor& logits,
                                    const RefTensor& ids,
                                    const RefTensor& temperatures) {
  RefTensor y(ids.shape);
  const int64_t vocab = logits.shape[1], k = ids.shape[1];
  for (int64_t r = 0; r < logits.shape[0]; ++r) {
    const double* const x = logits.values.data() + r * vocab;
    const double t = temperatures[r], top = *std::max_element(x, x + vocab);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += math::exp((x[v] - top) / t);
    for (int64_t i = 0; i < k; ++i) {
      const auto id = static_cast<int64_t>(ids[r * k + i]);
      y[r * k + i] = id == -1                            ? 0
                     : !(t > 0) || id < 0 || id >= vocab ? NAN
                                                         : (x[id] - top) / t - math::log(sum);
    }
  }
  return y;
}

}  // namespace ferry::ops
