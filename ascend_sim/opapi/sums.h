// Sums in float32 as the sim makes them: in chunks, whose order follows from a number that
// Launch::order gave (0 or not; equal numbers, equal orders).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace ascend_sim {

/// An order of accumulation. The default is the fixed one, which also keeps prefixes: elements that
/// are zero behind the end change nothing.
struct Order {
  uint64_t salt = 0;

  /// The pieces [first, last) of a contraction over k in the order in which they are added.
  std::vector<std::pair<int64_t, int64_t>> chunks(int64_t k) const;
  /// Where the sum over n elements begins (it goes round); 0 in the fixed order.
  int64_t first(int64_t n) const;
};

/// Elements of one chunk of a contraction: summed on their own, then added to the total.
inline constexpr int64_t kChunk = 128;

/// sum(x[i]), sum(x[i] * y[i]) and the largest of n floats.
float sum(const float* x, int64_t n, Order order = {});
float dot(const float* x, const float* y, int64_t n, Order order = {});
float largest(const float* x, int64_t n);

}  // namespace ascend_sim
