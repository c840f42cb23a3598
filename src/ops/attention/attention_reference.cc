// attention in float64, for judging kernels.
#include "ops/attention/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"

namespace ferry::ops {

RefTensor attention_reference(const RefTensor& q,
                              const RefTensor& k,
                              const RefTensor& v,
                              const std::vector<int32_t>& position,
                              const std::vector<int32_t>& key_begin,
                              double scale) {
  const int64_t tokens = q.shape[0], heads = q.shape[1], d_qk = q.shape[2];
  const int64_t key_heads = k.shape[1], d_v = v.shape[2];
  RefTensor out({tokens, heads, d_v});
  std::vector<double> p;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t keys = position[static_cast<size_t>(t)] + 1,
                    begin = key_begin[static_cast<size_t>(t)];
      const int64_t g = h / (heads / key_heads);
      p.assign(static_cast<size_t>(keys), 0.0);
      for (int64_t j = 0; j < keys; ++j) {
        double s = 0;
        for (int64_t d = 0; d < d_qk; ++d)
          s += q[(t * heads + h) * d_qk + d] * k[((begin + j) * key_heads + g) * d_qk + d];
        p[static_cast<size_t>(j)] = scale * s;
      }
      const double top = *std::max_element(p.begin(), p.end());
      double total = 0;
      for (double& x : p) total += x = math::exp(x - top);
      for (int64_t j = 0; j < keys; ++j)
        for (int64_t d = 0; d < d_v; ++d)
          out[(t * heads + h) * d_v + d] +=
              p[static_cast<size_t>(j)] / total * v[((begin + j) * key_heads + g) * d_v + d];
    }
  return out;
}

}  // namespace ferry::ops
