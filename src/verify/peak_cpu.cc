// Chains of vector fma, compiled once for each instruction set.
#include "ops/cpu/simd.h"
#include "verify/peak_kernels.h"

namespace ferry::doctor::FERRY_TIER {

namespace lanes = ferry::ops::FERRY_TIER;
using lanes::F32x16;

float fma_chains(int64_t rounds) {
  // Twelve chains hide the latency of two units and leave registers for the factors.
  const F32x16 a = lanes::splat(0.999f), b = lanes::splat(1e-3f);
  F32x16 c0 = b, c1 = a, c2 = b, c3 = a, c4 = b, c5 = a, c6 = b, c7 = a, c8 = b, c9 = a, c10 = b,
         c11 = a;
  for (int64_t i = 0; i < rounds; ++i) {
    c0 = fma(c0, a, b);
    c1 = fma(c1, a, b);
    c2 = fma(c2, a, b);
    c3 = fma(c3, a, b);
    c4 = fma(c4, a, b);
    c5 = fma(c5, a, b);
    c6 = fma(c6, a, b);
    c7 = fma(c7, a, b);
    c8 = fma(c8, a, b);
    c9 = fma(c9, a, b);
    c10 = fma(c10, a, b);
    c11 = fma(c11, a, b);
  }
  float out[lanes::kLanes];
  lanes::store(out, (c0 + c1 + c2) + (c3 + c4 + c5) + ((c6 + c7 + c8) + (c9 + c10 + c11)));
  float sum = 0;
  for (const float x : out) sum += x;
  return sum;
}

#if defined(FERRY_TIER_avx512)
float dot_chains(int64_t rounds) {
  constexpr int kChains = 12;  // as many as above
  const __m512bh pairs = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-3f), _mm512_set1_ps(1e-3f));
  F32x16 chain[kChains];
  for (int c = 0; c < kChains; ++c)
    chain[c] = lanes::splat(static_cast<float>(c));  // none like another
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 12
    for (F32x16& c : chain) c.v = _mm512_dpbf16_ps(c.v, pairs, pairs);
  F32x16 all = lanes::splat(0);
  for (const F32x16& c : chain) all = all + c;
  return lanes::sum_lanes(all);
}
#endif

}  // namespace ferry::doctor::FERRY_TIER
