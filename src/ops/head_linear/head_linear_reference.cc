// head_linear in float64, for judging kernels.
#include "ops/head_linear/head_linear_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> head_linear_reference(const RefArray<T>& x,
                                  const RefArray<T>& w,
                                  const HeadLinear& options) {
  const int64_t tokens = x.shape[0], heads = x.shape[1], inputs = x.shape[2], rank = w.shape[1];
  const int64_t outputs = options.transpose ? options.rows : rank;
  RefArray<T> y({tokens, heads, outputs});
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t o = 0; o < outputs; ++o) {
        const int64_t first = h * options.rows_per_head + options.begin;
        y[(t * heads + h) * outputs + o] =
            dot(x.values.data() + (t * heads + h) * inputs,
                1,
                w.values.data() + (options.transpose ? (first + o) * rank : first * rank + o),
                options.transpose ? 1 : rank,
                inputs);
      }
  return y;
}

template RefTensor head_linear_reference(const RefTensor&, const RefTensor&, const HeadLinear&);
template RealTensor head_linear_reference(const RealTensor&, const RealTensor&, const HeadLinear&);

}  // namespace ferry::ops
