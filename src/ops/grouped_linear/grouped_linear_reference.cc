// grouped_linear in float64, for judging kernels.
#include "ops/grouped_linear/grouped_linear_reference.h"

namespace ferry::ops {

template <class T>
RefArray<T> grouped_linear_reference(const RefArray<T>& x,
                                     const RefArray<T>& w,
                                     const RefTensor& offsets) {
  const int64_t experts = w.shape[0], outputs = w.shape[1], inputs = w.shape[2];
  RefArray<T> y({x.shape[0], outputs});
  for (int64_t e = 0; e < experts; ++e)
    for (auto r = static_cast<int64_t>(offsets[e]); r < static_cast<int64_t>(offsets[e + 1]); ++r)
      for (int64_t o = 0; o < outputs; ++o)
        y[r * outputs + o] = dot(x.values.data() + r * inputs,
                                 1,
                                 w.values.data() + (e * outputs + o) * inputs,
                                 1,
                                 inputs);
  return y;
}

template RefTensor grouped_linear_reference(const RefTensor&, const RefTensor&, const RefTensor&);
template RealTensor grouped_linear_reference(const RealTensor&,
                                             const RealTensor&,
                                             const RefTensor&);

}  // namespace ferry::ops
