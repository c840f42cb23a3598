// Sixteen float lanes on every tier: one AVX-512 register, two AVX2 registers, or an array that the
// compiler vectorises as it can. Each operation is exactly rounded (or, exp and log, built from
// exactly rounded ones in a fixed order), so all tiers give the same bits. Include from *_cpu.cc
// only.
#pragma once

#include <cstdint>
#include <cstring>

#include "tensor/bf16.h"
#include "tensor/f16.h"

#if defined(FERRY_TIER_avx512) || defined(FERRY_TIER_avx2)
#include <immintrin.h>
#endif

namespace ferry::ops::FERRY_TIER {

constexpr int kLanes = 16;

#if defined(FERRY_TIER_avx512)

struct F32x16 {
  __m512 v;
};

inline F32x16 splat(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
inline F32x16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
inline void store_n(float* p, F32x16 a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), a.v); }
inline F32x16 load(const bf16_t* p) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16))};
}
/// Sixteen numbers in half precision, exactly.
inline F32x16 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
/// Sixteen whole numbers.
inline F32x16 load_bytes(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F32x16 load_bytes(const int8_t* p) {
  return {_mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline void store(bf16_t* p, F32x16 a) {
  const __m256bh h = _mm512_cvtneps_pbh(a.v);
  std::memcpy(p, &h, 32);
}
inline F32x16 load_n(const bf16_t* p, int n) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first_lanes(n), p)), 16))};
}
inline void store_n(bf16_t* p, F32x16 a, int n) {
  const __m256bh h = _mm512_cvtneps_pbh(a.v);
  __m256i bits;
  std::memcpy(&bits, &h, 32);
  _mm256_mask_storeu_epi16(p, first_lanes(n), bits);
}
/// The value that storing as bfloat16 and loading again gives.
inline F32x16 rounded_to_bf16(F32x16 a) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v))), 16))};
}
inline F32x16 operator+(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}  // a*b + c
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }  // b if either is NaN
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 sqrt(F32x16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline F32x16 round_even(F32x16 a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/// a < b ? x : y, lane by lane (y if either is NaN).
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
/// 2^n for whole n in [-126, 127].
inline F32x16 pow2(F32x16 n) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23))};
}
/// Splits positive normal x into mantissa in [0.7071, 1.4142) and exponent: x = mantissa *
/// 2^exponent.
inline F32x16 split_exponent(F32x16 x, F32x16* exponent) {
  const __m512i bits = _mm512_sub_epi32(_mm512_castps_si512(x.v), _mm512_set1_epi32(0x3F3504F3));
  *exponent = {_mm512_cvtepi32_ps(_mm512_srai_epi32(bits, 23))};
  const __m512i m = _mm512_and_si512(bits, _mm512_set1_epi32(0x007FFFFF));
  return {_mm512_castsi512_ps(_mm512_add_epi32(m, _mm512_set1_epi32(0x3F3504F3)))};
}

#elif defined(FERRY_TIER_avx2)

struct F32x16 {
  __m256 lo, hi;
};

inline F32x16 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline __m256 widen(const bf16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
inline F32x16 load(const bf16_t* p) { return {widen(p), widen(p + 8)}; }
inline F32x16 load_f16(const uint16_t* p) {
  const auto eight = [](const uint16_t* at) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  };
  return {eight(p), eight(p + 8)};
}
inline F32x16 load_bytes(const uint8_t* p) {
  const auto eight = [](const uint8_t* at) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
  };
  return {eight(p), eight(p + 8)};
}
inline F32x16 load_bytes(const int8_t* p) {
  const auto eight = [](const int8_t* at) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
  };
  return {eight(p), eight(p + 8)};
}
/// Rounded to bfloat16: its bits in the upper half of each word, zeros in the lower.
inline __m256i round_words(__m256 f) {
  const __m256i u = _mm256_castps_si256(f);
  const __m256i magnitude = _mm256_and_si256(u, _mm256_set1_epi32(0x7FFFFFFF));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
  const __m256i tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), magnitude);
  const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000));
  r = _mm256_blendv_epi8(
      r, _mm256_and_si256(u, _mm256_set1_epi32(static_cast<int>(0x80000000))), tiny);
  r = _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x00400000)), nan);
  return _mm256_and_si256(r, _mm256_set1_epi32(static_cast<int>(0xFFFF0000)));
}
inline F32x16 rounded_to_bf16(F32x16 a) {
  return {_mm256_castsi256_ps(round_words(a.lo)), _mm256_castsi256_ps(round_words(a.hi))};
}
/// Sixteen bf16 in order: of `lo`, then of `hi`.
inline __m256i narrow(__m256 lo, __m256 hi) {
  const __m256i halves = _mm256_packus_epi32(_mm256_srli_epi32(round_words(lo), 16),
                                             _mm256_srli_epi32(round_words(hi), 16));
  return _mm256_permute4x64_epi64(halves, 0xD8);  // packus works within each half of a register
}
inline void store(bf16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a.lo, a.hi));
}
/// The first n of 8 lanes, 0 <= n <= 8.
inline __m256i first_lanes(int n) {
  alignas(32) static constexpr int32_t kLanesThenNone[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLanesThenNone + 8 - n));
}
/// The first n of 8 elements, 0 <= n <= 8; the others are zero and their memory is not touched.
inline __m256 load8_n(const float* p, int n) {
  return n == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(n));
}
inline __m128i load8_n_bits(const bf16_t* p, int n) {
  if (n == 8) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  uint64_t half[2] = {};
  const int whole = n / 4;
  if (whole == 1) std::memcpy(half, p, 8);
  const bf16_t* const rest = p + 4 * whole;
  for (int i = n % 4; i-- > 0;) half[whole] = half[whole] << 16 | rest[i];
  return _mm_set_epi64x(static_cast<int64_t>(half[1]), static_cast<int64_t>(half[0]));
}
inline __m256 load8_n(const bf16_t* p, int n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load8_n_bits(p, n)), 16));
}
template <typename T>
inline F32x16 load_n(const T* p, int n) {
  if (n == kLanes) return load(p);
  return n < 8 ? F32x16{load8_n(p, n), _mm256_setzero_ps()}
               : F32x16{load8_n(p, 8), load8_n(p + 8, n - 8)};
}
/// By pieces of 8, 4, 2 and 1: AMD's masked stores are slow.
inline void store_n(float* p, F32x16 a, int n) {
  if (n == kLanes) return store(p, a);
  __m256 eight = a.lo;
  if (n >= 8) {
    _mm256_storeu_ps(p, eight);
    p += 8;
    eight = a.hi;
  }
  __m128 four = _mm256_castps256_ps128(eight);
  if (n & 4) {
    _mm_storeu_ps(p, four);
    p += 4;
    four = _mm256_extractf128_ps(eight, 1);
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), four);
    p += 2;
    four = _mm_movehl_ps(four, four);
  }
  if (n & 1) _mm_store_ss(p, four);
}
inline void store_n(bf16_t* p, F32x16 a, int n) {
  const __m256i all = narrow(a.lo, a.hi);
  if (n == kLanes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), all);
  __m128i eight = _mm256_castsi256_si128(all);
  if (n >= 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), eight);
    p += 8;
    eight = _mm256_extracti128_si256(all, 1);
  }
  if (n & 4) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), eight);
    p += 4;
    eight = _mm_unpackhi_epi64(eight, eight);
  }
  uint64_t rest = static_cast<uint64_t>(_mm_cvtsi128_si64(eight));
  for (int i = 0; i < (n & 3); ++i, rest >>= 16) p[i] = static_cast<bf16_t>(rest);
}
inline F32x16 operator+(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline F32x16 sqrt(F32x16 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
inline F32x16 round_even(F32x16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
inline F32x16 pow2(F32x16 n) {
  const auto half = [](__m256 h) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(h), _mm256_set1_epi32(127)), 23));
  };
  return {half(n.lo), half(n.hi)};
}
inline F32x16 split_exponent(F32x16 x, F32x16* exponent) {
  const __m256i bias = _mm256_set1_epi32(0x3F3504F3);
  const auto half = [bias](__m256 h, __m256* e) {
    const __m256i bits = _mm256_sub_epi32(_mm256_castps_si256(h), bias);
    *e = _mm256_cvtepi32_ps(_mm256_srai_epi32(bits, 23));
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x007FFFFF)), bias));
  };
  F32x16 m;
  m.lo = half(x.lo, &exponent->lo);
  m.hi = half(x.hi, &exponent->hi);
  return m;
}

#else  // plain

struct F32x16 {
  float v[16];
};

template <typename F>
inline F32x16 lanewise(F&& f) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}
inline F32x16 splat(float x) {
  return lanewise([=](int) { return x; });
}
inline F32x16 load(const float* p) {
  F32x16 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store(float* p, F32x16 a) { std::memcpy(p, a.v, sizeof a.v); }
inline F32x16 load(const bf16_t* p) {
  return lanewise([=](int i) { return bf16_to_f32(p[i]); });
}
inline F32x16 load_f16(const uint16_t* p) {
  return lanewise([=](int i) { return f16_to_f32(p[i]); });
}
inline F32x16 load_bytes(const uint8_t* p) {
  return lanewise([=](int i) { return static_cast<float>(p[i]); });
}
inline F32x16 load_bytes(const int8_t* p) {
  return lanewise([=](int i) { return static_cast<float>(p[i]); });
}
inline void store(bf16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = f32_to_bf16(a.v[i]);
}
inline F32x16 rounded_to_bf16(F32x16 a) {
  return lanewise([&](int i) { return bf16_to_f32(f32_to_bf16(a.v[i])); });
}
inline F32x16 operator+(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 operator-(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 operator*(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 operator/(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] / b.v[i]; });
}
// One fused operation with one rounding: an instruction on Arm, fmaf on x86 without -mfma.
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return lanewise([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline F32x16 max(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 min(F32x16 a, F32x16 b) {
  return lanewise([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 sqrt(F32x16 a) {
  return lanewise([&](int i) { return __builtin_sqrtf(a.v[i]); });
}
inline F32x16 round_even(F32x16 a) {
  // Adding and taking away 1.5 * 2^23 rounds |a| < 2^22; larger values do not occur (exp clamps).
  return lanewise([&](int i) {
    volatile float shifted = a.v[i] + 12582912.0f;
    return shifted - 12582912.0f;
  });
}
inline F32x16 where_less(F32x16 a, F32x16 b, F32x16 x, F32x16 y) {
  return lanewise([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}
inline F32x16 pow2(F32x16 n) {
  return lanewise([&](int i) {
    return std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n.v[i]) + 127) << 23);
  });
}
inline F32x16 split_exponent(F32x16 x, F32x16* exponent) {
  return lanewise([&](int i) {
    const int32_t bits = std::bit_cast<int32_t>(x.v[i]) - 0x3F3504F3;
    exponent->v[i] = static_cast<float>(bits >> 23);
    return std::bit_cast<float>((bits & 0x007FFFFF) + 0x3F3504F3);
  });
}

/// The first n of 16 lanes; the others are zero and their memory is not touched. 0 <= n <= 16.
template <typename T>
inline F32x16 load_n(const T* p, int n) {
  if (n == kLanes) return load(p);
  T block[16] = {};
  std::memcpy(block, p, static_cast<size_t>(n) * sizeof(T));
  return load(block);
}
template <typename T>
inline void store_n(T* p, F32x16 a, int n) {
  if (n == kLanes) return store(p, a);
  T block[16];
  store(block, a);
  std::memcpy(p, block, static_cast<size_t>(n) * sizeof(T));
}
#endif

/// Sum of the lanes as a fixed tree: halves (i, i+8), then 4, 2, 1 apart. Part of the numerics
/// format.
inline float sum_lanes(F32x16 a) {
  float b[16];
  store(b, a);
  for (int width = 8; width >= 1; width /= 2)
    for (int i = 0; i < width; ++i) b[i] = b[i] + b[i + width];
  return b[0];
}
inline float max_lanes(F32x16 a) {
  float b[16];
  store(b, a);
  float m = b[0];
  for (int i = 1; i < 16; ++i) m = b[i] > m ? b[i] : m;
  return m;
}

/// e^x. Error below 2 ulp for x in [-87.3, 88.3]; below that 0, above it the value at 88.3.
/// Cody-Waite reduction by ln 2 in two parts, then a polynomial of degree 6 on [-ln2/2, ln2/2].
inline F32x16 exp(F32x16 x) {
  const F32x16 low = splat(-87.3f);
  // The operand order lets NaN through: max and min return their second operand then.
  const F32x16 clamped = min(splat(88.3f), max(low, x));
  const F32x16 n = round_even(clamped * splat(1.44269504f));
  F32x16 r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  F32x16 p = splat(1.3888889e-3f);
  p = fma(p, r, splat(8.3333338e-3f));
  p = fma(p, r, splat(4.1666668e-2f));
  p = fma(p, r, splat(1.6666667e-1f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  return where_less(x, low, splat(0.0f), p * pow2(n));
}

/// Natural logarithm of positive normal x. Error below 2 ulp (absolute 1e-7 near x = 1). Of NaN and
/// infinity NaN: a loss that is none must not look like one.
/// log1p(f) = f - f^2/2 + f^3 P(f) on f in [-0.293, 0.415), after taking the exponent out.
inline F32x16 log(F32x16 x) {
  F32x16 e;
  const F32x16 f = split_exponent(x, &e) - splat(1.0f);
  F32x16 p = splat(7.0376836292e-2f);
  p = fma(p, f, splat(-1.1514610310e-1f));
  p = fma(p, f, splat(1.1676998740e-1f));
  p = fma(p, f, splat(-1.2420140846e-1f));
  p = fma(p, f, splat(1.4249322787e-1f));
  p = fma(p, f, splat(-1.6668057665e-1f));
  p = fma(p, f, splat(2.0000714765e-1f));
  p = fma(p, f, splat(-2.4999993993e-1f));
  p = fma(p, f, splat(3.3333331174e-1f));
  const F32x16 f2 = f * f;
  F32x16 y = p * f2 * f;
  y = fma(e, splat(-2.12194440e-4f), y);
  y = fma(f2, splat(-0.5f), y);
  return fma(e, splat(0.693359375f), f + y) + (x - x);
}

/// 1 / (1 + e^-x)
inline F32x16 sigmoid(F32x16 x) { return splat(1.0f) / (splat(1.0f) + exp(splat(0.0f) - x)); }

}  // namespace ferry::ops::FERRY_TIER
