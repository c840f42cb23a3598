// Small matrix products on register tiles, for kernels that keep their operands in cache: attention
// scores and what is made of them. C[m][n] (+)= sum over k of A[m][k] * B[k][n], one accumulator
// per element. Operands are f32; those of a bf16 product hold values widened from bf16 and meet in
// vdpbf16ps's order, which is exact: the bits are that instruction's. (It is not used here because
// it runs at half the arithmetic rate of two FMAs on Sapphire and Emerald Rapids: 85 against 171
// GFLOP/s.) Include from *_cpu.cc only.
#pragma once

#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {

/// How many elements of the contraction one step takes: bf16 products take k + 1, then k.
template <typename T>
constexpr int kGroup = sizeof(T) == 2 ? 2 : 1;

/// The value that storing to T and loading again gives.
template <typename T>
inline F32x16 rounded_to(F32x16 a) {
  return sizeof(T) == 4 ? a : rounded_to_bf16(a);
}

/// What C holds before the sum: +0; C itself; C times a factor for each column.
enum class Start { kZero, kAdd, kScaleAndAdd };

/// The operands of a product. Strides in elements; C's columns are whole vectors; k is padded by
/// zeros to whole groups.
struct TileProduct {
  const float* a;  // [m][k]
  int64_t a_stride;
  const float* b;  // [k][columns]
  int64_t b_stride;
  int64_t k;
  float* c;  // [m][columns]
  int64_t c_stride;
  const float* factor = nullptr;  // [columns], for Start::kScaleAndAdd
};

#if defined(FERRY_TIER_avx512)
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 of 32 registers are sums
#elif defined(FERRY_TIER_avx2)
constexpr int kTileRows = 6, kTileVectors = 1;  // 12 of 16
#else
constexpr int kTileRows = 4, kTileVectors = 1;
#endif

template <Start start, int group, int rows, int vectors>
inline void register_tile(const TileProduct& p, int64_t row, int64_t column) {
  F32x16 sum[rows][vectors];
  const int64_t a_stride = p.a_stride, c_stride = p.c_stride;
  float* const c = p.c + row * c_stride + column;
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) {
      if constexpr (start == Start::kZero)
        sum[i][j] = splat(0);
      else
        sum[i][j] = load(c + i * c_stride + j * kLanes);
      if constexpr (start == Start::kScaleAndAdd)
        sum[i][j] = sum[i][j] * load(p.factor + column + j * kLanes);
    }
  const float* a = p.a + row * a_stride;
  const float* b = p.b + column;
  for (int64_t k = 0; k < p.k; k += group, a += group, b += group * p.b_stride) {
#pragma GCC unroll 2
    for (int e = group - 1; e >= 0; --e) {
      F32x16 lanes[vectors];
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) lanes[j] = load(b + e * p.b_stride + j * kLanes);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        const F32x16 one = splat(a[i * a_stride + e]);
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sum[i][j] = fma(one, lanes[j], sum[i][j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) store(c + i * c_stride + j * kLanes, sum[i][j]);
}

template <Start start, int group, int vectors>
inline void product_columns(const TileProduct& p, int64_t row, int64_t rows_end, int64_t column) {
  for (; row + kTileRows <= rows_end; row += kTileRows)
    register_tile<start, group, kTileRows, vectors>(p, row, column);
  if constexpr (kTileRows > 4)
    if (row + 4 <= rows_end) {
      register_tile<start, group, 4, vectors>(p, row, column);
      row += 4;
    }
  if (row + 2 <= rows_end) {
    register_tile<start, group, 2, vectors>(p, row, column);
    row += 2;
  }
  if (row < rows_end) register_tile<start, group, 1, vectors>(p, row, column);
}

/// Rows [row, rows_end) and columns [column, column + 16 * vectors) of C, for operands that came
/// from T.
template <Start start, typename T>
[[gnu::noinline]] void tile_product(
    const TileProduct& p, int64_t row, int64_t rows_end, int64_t column, int64_t vectors) {
  constexpr int group = kGroup<T>;
  for (; vectors >= kTileVectors; vectors -= kTileVectors, column += kTileVectors * kLanes)
    product_columns<start, group, kTileVectors>(p, row, rows_end, column);
  if constexpr (kTileVectors > 1) {
    if (vectors == 3) product_columns<start, group, 3>(p, row, rows_end, column);
    if (vectors == 2) product_columns<start, group, 2>(p, row, rows_end, column);
    if (vectors == 1) product_columns<start, group, 1>(p, row, rows_end, column);
  }
}

}  // namespace ferry::ops::FERRY_TIER
