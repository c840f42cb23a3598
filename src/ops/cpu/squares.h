// Sums of squares in float64, in the order that is part of the numerics format: blocks of
// kSquaresBlock elements by sixteen lanes, blocks as a binary tree of neighbours. The lanes are a
// plain array: the square of a float is exact in float64, so with or without fma there is one
// rounding for each element, and the compiler may vectorise as it can. Include from *_cpu.cc only.
#pragma once

#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {

inline constexpr int64_t kSquaresBlock = 4096;

/// At least one, which an empty sum needs too.
inline int64_t square_blocks(int64_t count) {
  return count == 0 ? 1 : (count + kSquaresBlock - 1) / kSquaresBlock;
}

/// Of one block.
inline double square_block(const float* x, int64_t n) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l)
      lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  for (int l = 0; i + l < n; ++l)
    lanes[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
  for (int width = kLanes / 2; width >= 1; width /= 2)
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

/// Of the blocks' sums, which it overwrites.
inline double add_blocks(double* sums, int64_t blocks) {
  while (blocks > 1) {
    const int64_t pairs = blocks / 2;
    for (int64_t b = 0; b < pairs; ++b) sums[b] = sums[2 * b] + sums[2 * b + 1];
    if (blocks % 2 == 1) sums[pairs] = sums[blocks - 1];
    blocks = pairs + blocks % 2;
  }
  return sums[0];
}

}  // namespace ferry::ops::FERRY_TIER
