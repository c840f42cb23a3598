// Small matrix products on register tiles, for kernels that keep their operands in cache: attention
// scores and what is made of them. C[m][n] (+)= sum over k of A[m][k] * B[k][n], one accumulator per
// element, k ascending; bf16 in pairs as vdpbf16ps takes them. Include from *_cpu.cc only.
#pragma once

#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {

/// How many elements of the contraction one step takes: a "group". B holds the lanes of a group side
/// by side: [k / kGroup][lane][k % kGroup].
template <typename T>
constexpr int kGroup = sizeof(T) == 2 ? 2 : 1;

inline F32x16 broadcast_group(const float* p) { return splat(*p); }
inline F32x16 load_groups(const float* p) { return load(p); }
inline F32x16 dot(F32x16 sum, F32x16 a, F32x16 b) { return fma(a, b, sum); }

/// Sixteen lanes of two bf16 each. dot: sum = fma(a[1], b[1], sum), then fma(a[0], b[0], sum).
#if defined(FERRY_TIER_avx512)
struct PairsX16 { __m512i v; };
inline PairsX16 broadcast_group(const bf16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
inline PairsX16 load_groups(const bf16_t* p) { return {_mm512_loadu_si512(p)}; }
inline F32x16 dot(F32x16 sum, PairsX16 a, PairsX16 b) {
  return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)b.v)};
}
inline void store_groups(bf16_t* p, F32x16 first, F32x16 second) {
  const auto widened = [](F32x16 f) { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(f.v)); };
  _mm512_storeu_si512(p, _mm512_or_si512(widened(first), _mm512_slli_epi32(widened(second), 16)));
}
#else
struct PairsX16 { F32x16 first, second; };
inline PairsX16 broadcast_group(const bf16_t* p) { return {splat(bf16_to_f32(p[0])), splat(bf16_to_f32(p[1]))}; }
#if defined(FERRY_TIER_avx2)
inline PairsX16 load_groups(const bf16_t* p) {
  const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xFFFF0000u));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(lo, mask)), _mm256_castsi256_ps(_mm256_and_si256(hi, mask))}};
}
#else
inline PairsX16 load_groups(const bf16_t* p) {
  return {lanewise([=](int i) { return bf16_to_f32(p[2 * i]); }), lanewise([=](int i) { return bf16_to_f32(p[2 * i + 1]); })};
}
#endif
inline F32x16 dot(F32x16 sum, PairsX16 a, PairsX16 b) { return fma(a.first, b.first, fma(a.second, b.second, sum)); }
inline void store_groups(bf16_t* p, F32x16 first, F32x16 second) {
  bf16_t even[kLanes], odd[kLanes];
  store(even, first);
  store(odd, second);
  for (int i = 0; i < kLanes; ++i) {
    p[2 * i] = even[i];
    p[2 * i + 1] = odd[i];
  }
}
#endif

/// What C holds before the sum: +0; C itself; C times a factor for each column.
enum class Start { kZero, kAdd, kScaleAndAdd };

/// The operands of a product. Leading dimensions in elements; C's columns are whole vectors.
template <typename T>
struct TileProduct {
  const T* a;            // [m][k], pairs of k side by side
  int64_t a_stride;
  const T* b;            // [k / kGroup][columns][kGroup]
  int64_t b_stride;      // between groups
  int64_t groups;
  float* c;              // [m][columns]
  int64_t c_stride;
  const float* factor = nullptr;  // [columns], for Start::kScaleAndAdd
};

#if defined(FERRY_TIER_avx512)
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 of 32 registers are sums
#else
constexpr int kTileRows = 4, kTileVectors = 1;  // AVX2: 8 of 16
#endif

template <Start start, int rows, int vectors, typename T>
inline void register_tile(const TileProduct<T>& p, int64_t row, int64_t column) {
  F32x16 sum[rows][vectors];
  float* const c = p.c + row * p.c_stride + column;
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      if constexpr (start == Start::kZero) sum[i][j] = splat(0);
      else sum[i][j] = load(c + i * p.c_stride + j * kLanes);
      if constexpr (start == Start::kScaleAndAdd) sum[i][j] = sum[i][j] * load(p.factor + column + j * kLanes);
    }
  const T* a = p.a + row * p.a_stride;
  const T* b = p.b + column * kGroup<T>;
  for (int64_t g = 0; g < p.groups; ++g, a += kGroup<T>, b += p.b_stride) {
    decltype(load_groups(b)) lanes[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) lanes[j] = load_groups(b + j * kLanes * kGroup<T>);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const auto one = broadcast_group(a + i * p.a_stride);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sum[i][j] = dot(sum[i][j], one, lanes[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) store(c + i * p.c_stride + j * kLanes, sum[i][j]);
}

template <Start start, int vectors, typename T>
inline void product_columns(const TileProduct<T>& p, int64_t row, int64_t rows_end, int64_t column) {
  for (; row + kTileRows <= rows_end; row += kTileRows) register_tile<start, kTileRows, vectors>(p, row, column);
  if constexpr (kTileRows > 4)
    if (row + 4 <= rows_end) {
      register_tile<start, 4, vectors>(p, row, column);
      row += 4;
    }
  if (row + 2 <= rows_end) {
    register_tile<start, 2, vectors>(p, row, column);
    row += 2;
  }
  if (row < rows_end) register_tile<start, 1, vectors>(p, row, column);
}

/// Rows [row, rows_end) and columns [column, column + 16 * vectors) of C.
template <Start start, typename T>
void tile_product(const TileProduct<T>& p, int64_t row, int64_t rows_end, int64_t column, int64_t vectors) {
  for (; vectors >= kTileVectors; vectors -= kTileVectors, column += kTileVectors * kLanes)
    product_columns<start, kTileVectors>(p, row, rows_end, column);
  if constexpr (kTileVectors > 1) {
    if (vectors == 3) product_columns<start, 3>(p, row, rows_end, column);
    if (vectors == 2) product_columns<start, 2>(p, row, rows_end, column);
    if (vectors == 1) product_columns<start, 1>(p, row, rows_end, column);
  }
}

}  // namespace ferry::ops::FERRY_TIER
