// Sums of exponentials over a row of logits: the one order in which losses and the log-probabilities
// of answers add them. Include from *_cpu.cc only.
#pragma once

#include "ops/cpu/loops.h"
#include "ops/cross_entropy/cross_entropy.h"

namespace ferry::ops::FERRY_TIER {

inline float row_max(const float* x, int64_t n) {
  float m = x[0];
  int64_t i = 0;
  if (n >= kLanes) {
    F32x16 lanes = load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes) lanes = max(lanes, load(x + i));
    m = max_lanes(lanes);
  }
  for (; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

/// Sum of e^exponent(i, n) over n <= 16 columns at a time: for each tile of kVocabTile columns 16
/// lanes, then the lane tree; tiles ascending. seen(i, e, n) is called with each vector of powers.
template <typename Exponent, typename Seen>
float sum_exp(int64_t columns, Exponent&& exponent, Seen&& seen) {
  float sum = 0;
  for (int64_t tile = 0; tile < columns; tile += kVocabTile) {
    const int64_t end = tile + kVocabTile < columns ? tile + kVocabTile : columns;
    F32x16 lanes = splat(0);
    for_lanes(tile, end, [&](int64_t i, int n) {
      const F32x16 e = exp(exponent(i, n));
      seen(i, e, n);
      if (n == kLanes) {
        lanes = lanes + e;
      } else {
        float part[kLanes];
        store(part, e);
        lanes = lanes + load_n(part, n);  // lanes past the end are zero
      }
    });
    sum = sum + sum_lanes(lanes);
  }
  return sum;
}

}  // namespace ferry::ops::FERRY_TIER
