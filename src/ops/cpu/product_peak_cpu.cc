// Chains of the instructions that products are made of, enough of them side by side to hide how
// long one takes, and nothing that is read from memory.
#include "ops/cpu/product_peak.h"

#if defined(FERRY_TIER_avx512) || defined(FERRY_TIER_avx2)
#include <immintrin.h>
#endif

#include "base/cpu_tier.h"

namespace ferry::ops::FERRY_TIER {

#if defined(FERRY_TIER_avx512)
namespace {
constexpr int kChains = 12;
}

int64_t multiply_codes(int64_t rounds) {
  __m512i sums[kChains];
  for (__m512i& s : sums) s = _mm512_setzero_si512();
  const __m512i codes = _mm512_set1_epi8(1);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (__m512i& s : sums) asm volatile("vpdpbusd %1, %1, %0" : "+v"(s) : "v"(codes));
  return rounds * kChains * 64;
}

int64_t multiply_bf16(int64_t rounds) {
  const bool dot = cpu_tier() == CpuTier::kAvx512Dot;
  __m512 sums[kChains];
  for (__m512& s : sums) s = _mm512_setzero_ps();
  const __m512 ones = _mm512_set1_ps(1);
  if (dot) {
    for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
      for (__m512& s : sums) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(s) : "v"(ones));
  } else {
    for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
      for (__m512& s : sums) asm volatile("vfmadd231ps %1, %1, %0" : "+v"(s) : "v"(ones));
  }
  return rounds * kChains * (dot ? 32 : 16);
}

#elif defined(FERRY_TIER_avx2)
namespace {
constexpr int kChains = 10;
}

int64_t multiply_codes(int64_t rounds) {
  __m256i sums[kChains];
  for (__m256i& s : sums) s = _mm256_setzero_si256();
  const __m256i codes = _mm256_set1_epi16(1);  // widened: code_product_cpu.cc says why
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 10
    for (__m256i& s : sums) {
      __m256i product;
      asm volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0"
                   : "+x"(s), "=&x"(product)
                   : "x"(codes));
    }
  return rounds * kChains * 16;
}

int64_t multiply_bf16(int64_t rounds) {
  __m256 sums[kChains];
  for (__m256& s : sums) s = _mm256_setzero_ps();
  const __m256 ones = _mm256_set1_ps(1);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 10
    for (__m256& s : sums) asm volatile("vfmadd231ps %1, %1, %0" : "+x"(s) : "x"(ones));
  return rounds * kChains * 8;
}

#else

int64_t multiply_codes(int64_t) { return 0; }
int64_t multiply_bf16(int64_t) { return 0; }

#endif

}  // namespace ferry::ops::FERRY_TIER
