// mla_expand in float64, for judging kernels.
#include "ops/mla_expand/mla_expand_reference.h"

namespace ferry::ops {

std::vector<RefTensor> mla_expand_reference(const RefTensor& kv,
                                            const RefTensor& k_pe,
                                            int64_t nope) {
  const int64_t tokens = kv.shape[0], heads = kv.shape[1], columns = kv.shape[2],
                rotary = k_pe.shape[1];
  const int64_t d_qk = nope + rotary, d_v = columns - nope;
  RefTensor k({tokens, heads, d_qk}), v({tokens, heads, d_v});
  for (int64_t row = 0; row < tokens * heads; ++row) {
    for (int64_t d = 0; d < d_qk; ++d)
      k[row * d_qk + d] = d < nope ? kv[row * columns + d] : k_pe[row / heads * rotary + d - nope];
    for (int64_t d = 0; d < d_v; ++d) v[row * d_v + d] = kv[row * columns + nope + d];
  }
  return {k, v};
}

}  // namespace ferry::ops
