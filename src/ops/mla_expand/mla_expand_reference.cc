// mla_expand in float64, for judging kernels.
#include "ops/mla_expand/mla_expand_reference.h"

namespace ferry::ops {

std::vector<RefTensor> mla_expand_reference(const RefTensor& kv, const RefTensor& k_pe, int64_t nope) {
  const int64_t tokens = kv.shape[0], heads = kv.shape[1], rope = k_pe.shape[1], value = kv.shape[2] - nope;
  RefTensor k({tokens, heads, nope + rope}), v({tokens, heads, value});
  for (int64_t r = 0; r < tokens * heads; ++r) {
    for (int64_t i = 0; i < nope; ++i) k[r * (nope + rope) + i] = kv[r * (nope + value) + i];
    for (int64_t i = 0; i < rope; ++i) k[r * (nope + rope) + nope + i] = k_pe[r / heads * rope + i];
    for (int64_t i = 0; i < value; ++i) v[r * value + i] = kv[r * (nope + value) + nope + i];
  }
  return {k, v};
}

}  // namespace ferry::ops
