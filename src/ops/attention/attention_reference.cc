// attention in float64, for judging kernels.
#include "ops/attention/attention_reference.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"

namespace ferry::ops {

template <class T>
RefArray<T> attention_reference(const RefArray<T>& q,
                                const RefArray<T>& k,
                                const RefArray<T>& v,
                                const std::vector<int32_t>& position,
                                const std::vector<int32_t>& key_begin,
                                double scale) {
  using math::exp;
  constexpr double kUnit = 0x1p-24;
  const int64_t tokens = q.shape[0], heads = q.shape[1], d_qk = q.shape[2];
  const int64_t key_heads = k.shape[1], d_v = v.shape[2];
  RefArray<T> out({tokens, heads, d_v});
  std::vector<T> score, e;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t keys = position[static_cast<size_t>(t)] + 1,
                    begin = key_begin[static_cast<size_t>(t)];
      const int64_t g = h / (heads / key_heads);
      score.clear();
      double top = -INFINITY;
      for (int64_t j = 0; j < keys; ++j) {
        const T s = T(scale) * dot(q.values.data() + (t * heads + h) * d_qk,
                                   1,
                                   k.values.data() + ((begin + j) * key_heads + g) * d_qk,
                                   1,
                                   d_qk);
        score.push_back(gradient_stored(s));  // dS is an operand of products
        top = std::max(top, value_of(s));
      }
      // Kernels subtract the largest score or, on the way back, the logarithm of the sum; either
      // is rounded, and tiles of 64 keys rescale what came before them. Which number is subtracted
      // does not matter to the result, so its gradient is none.
      e.clear();
      T total = T(0.0);
      const double lse_size = std::abs(top) + math::log(static_cast<double>(keys));
      for (int64_t j = 0; j < keys; ++j) {
        const T& s = score[static_cast<size_t>(j)];
        const double apart = std::min(std::abs(value_of(s)) + 2 * lse_size, 0x1p30);
        e.push_back(stored(exp(uncertain(
            s - T(top),
            kUnit * (apart + 4 + 6 * static_cast<double>(keys) / 64)))));  // and P is another
      }
      for (const T& x : e) total += x;
      for (int64_t d = 0; d < d_v; ++d)
        out[(t * heads + h) * d_v + d] =
            stored(dot(e.data(),
                       1,
                       v.values.data() + (begin * key_heads + g) * d_v + d,
                       key_heads * d_v,
                       keys) /
                   total);
    }
  return out;
}

template RefTensor attention_reference(const RefTensor&,
                                       const RefTensor&,
                                       const RefTensor&,
                                       const std::vector<int32_t>&,
                                       const std::vector<int32_t>&,
                                       double);
template RealTensor attention_reference(const RealTensor&,
                                        const RealTensor&,
                                        const RealTensor&,
                                        const std::vector<int32_t>&,
                                        const std::vector<int32_t>&,
                                        double);

}  // namespace ferry::ops
