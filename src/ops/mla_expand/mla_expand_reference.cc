// mla_expand in float64, for judging kernels.
#include "ops/mla_expand/mla_expand_reference.h"

namespace ferry::ops {

template <class T>
std::vector<RefArray<T>> mla_expand_reference(const RefArray<T>& kv,
                                              const RefArray<T>& k_pe,
                                              int64_t nope) {
  const int64_t tokens = kv.shape[0], heads = kv.shape[1], columns = kv.shape[2],
                rotary = k_pe.shape[1];
  const int64_t d_qk = nope + rotary, d_v = columns - nope;
  RefArray<T> k({tokens, heads, d_qk}), v({tokens, heads, d_v});
  for (int64_t row = 0; row < tokens * heads; ++row) {
    for (int64_t d = 0; d < d_qk; ++d)
      k[row * d_qk + d] = d < nope ? kv[row * columns + d] : k_pe[row / heads * rotary + d - nope];
    for (int64_t d = 0; d < d_v; ++d) v[row * d_v + d] = kv[row * columns + nope + d];
  }
  return {k, v};
}

template std::vector<RefTensor> mla_expand_reference(const RefTensor&, const RefTensor&, int64_t);
template std::vector<RealTensor> mla_expand_reference(const RealTensor&,
                                                      const RealTensor&,
                                                      int64_t);

}  // namespace ferry::ops
