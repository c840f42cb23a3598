#include "opapi/sums.h"

#include <algorithm>
#include <limits>

namespace ascend_sim {
namespace {

constexpr int64_t kLanes = 64;

/// Lane i mod 64 adds its elements in order; then the lanes are added by halves.
template <class Element>
float lanes_sum(int64_t first, int64_t last, Element element) {
  float lanes[kLanes] = {};
  int64_t i = first;
  for (; i + kLanes <= last; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += element(i + l);
  for (int64_t l = 0; i + l < last; ++l) lanes[l] += element(i + l);
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

template <class Element>
float ordered_sum(int64_t n, Order order, Element element) {
  const int64_t first = order.first(n);
  const float total = lanes_sum(first, n, element);
  return first == 0 ? total : total + lanes_sum(0, first, element);
}

uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

}  // namespace

int64_t Order::first(int64_t n) const {
  if (salt == 0 || n < 2) return 0;
  return 1 + static_cast<int64_t>(mixed(salt) % static_cast<uint64_t>(n - 1));
}

std::vector<std::pair<int64_t, int64_t>> Order::chunks(int64_t k) const {
  std::vector<std::pair<int64_t, int64_t>> out;
  const int64_t start = first(k);
  for (int64_t i = start; i < k; i += kChunk) out.emplace_back(i, std::min(i + kChunk, k));
  for (int64_t i = 0; i < start; i += kChunk) out.emplace_back(i, std::min(i + kChunk, start));
  return out;
}

float sum(const float* x, int64_t n, Order order) {
  return ordered_sum(n, order, [x](int64_t i) { return x[i]; });
}

float dot(const float* x, const float* y, int64_t n, Order order) {
  return ordered_sum(n, order, [x, y](int64_t i) { return x[i] * y[i]; });
}

float largest(const float* x, int64_t n) {
  float m = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) m = std::max(m, x[i]);
  return m;
}

}  // namespace ascend_sim
