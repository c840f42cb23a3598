// Sums of exponentials over a row of logits (device code: of *_cuda.cu alone), in the order of
// ops/cpu/log_sum_exp.h: tiles of the vocabulary, in each a sum of sixteen lanes, tiles ascending.
#pragma once

#include "ops/cuda/device_math.h"

namespace ferry::ops {

constexpr int64_t kVocabTile = 1024;

/// Of the numbers among them (NaN shows in the sum), in each of the sixteen lanes. The whole warp
/// must be here.
__device__ inline float row_max(const float* x, int64_t n) {
  float m = __uint_as_float(0xFF800000u);  // minus infinity
  for (int64_t i = lane(); i < n; i += kLanes) m = x[i] > m ? x[i] : m;
  __syncwarp();
#pragma unroll
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    const float other = __shfl_xor_sync(0xFFFFFFFFu, m, width, kLanes);
    m = other > m ? other : m;
  }
  return m;
}

/// Of e^exponent(i), in each of the sixteen lanes; seen(i, e) is called with each power.
template <typename Exponent, typename Seen>
__device__ inline float sum_exp(int64_t columns, Exponent&& exponent, Seen&& seen) {
  float sum = 0;
  for (int64_t tile = 0; tile < columns; tile += kVocabTile) {
    const int64_t end = tile + kVocabTile < columns ? tile + kVocabTile : columns;
    float lanes = 0;
    for (int64_t i = tile + lane(); i < end; i += kLanes) {
      const float e = exp(exponent(i));
      seen(i, e);
      lanes = lanes + e;
    }
    __syncwarp();
    sum = sum + sum_lanes(lanes);
  }
  return sum;
}

}  // namespace ferry::ops
