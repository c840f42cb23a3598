// Square blocks turned around in registers. They move bits and compute nothing. Include from
// *_cpu.cc only.
#pragma once

#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {

#if defined(FERRY_TIER_avx512)

using Words = __m512i;
constexpr int kWords = 16;

/// out[j] lane i = in[i] lane j.
inline void transpose(Words (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xDD);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xDD);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xDD);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xDD);
  }
}

inline void transpose(F32x16 (&r)[kLanes]) {
  Words w[16];
  for (int i = 0; i < 16; ++i) w[i] = _mm512_castps_si512(r[i].v);
  transpose(w);
  for (int i = 0; i < 16; ++i) r[i] = {_mm512_castsi512_ps(w[i])};
}

#elif defined(FERRY_TIER_avx2)

using Words = __m256i;
constexpr int kWords = 8;

inline void transpose(Words (&r)[8]) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

inline void transpose(F32x16 (&r)[kLanes]) {
  Words w[8];
  __m256 quarter[4][8];  // rows 0-7 and 8-15 of the lanes 0-7, then of 8-15
  for (int q = 0; q < 4; ++q) {
    for (int i = 0; i < 8; ++i) {
      const F32x16& row = r[q % 2 * 8 + i];
      w[i] = _mm256_castps_si256(q < 2 ? row.lo : row.hi);
    }
    transpose(w);
    for (int i = 0; i < 8; ++i) quarter[q][i] = _mm256_castsi256_ps(w[i]);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = {quarter[0][i], quarter[1][i]};
    r[i + 8] = {quarter[2][i], quarter[3][i]};
  }
}

#else

inline void transpose(F32x16 (&r)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float f = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = f;
    }
}

#endif

}  // namespace ferry::ops::FERRY_TIER
