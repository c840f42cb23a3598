// Sixteen float64 lanes as a plain array: the square of a float is exact in float64, so with or
// without fma there is one rounding for each element, and the compiler may vectorise as it can.
#include "ops/cpu/loops.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

double block_sum(const float* x, int64_t n) {
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

}  // namespace

Plan sum_squares_plan(const SumSquaresArgs& a) {
  return {.workspace_bytes = static_cast<size_t>(a.x.count() / kSquaresBlock + 1) * sizeof(double)};
}

void sum_squares(const Plan&, const SumSquaresArgs& a, void* workspace, Stream&) {
  const int64_t count = a.x.count();
  int64_t blocks = (count + kSquaresBlock - 1) / kSquaresBlock;
  auto* sums = static_cast<double*>(workspace);
  parallel_rows(blocks, kSquaresBlock, [&](int64_t b) {
    const int64_t begin = b * kSquaresBlock;
    sums[b] = block_sum(a.x.as<float>() + begin,
                        count - begin < kSquaresBlock ? count - begin : kSquaresBlock);
  });
  if (blocks == 0) sums[blocks++] = 0;
  while (blocks > 1) {
    const int64_t pairs = blocks / 2;
    for (int64_t b = 0; b < pairs; ++b) sums[b] = sums[2 * b] + sums[2 * b + 1];
    if (blocks % 2 == 1) sums[pairs] = sums[blocks - 1];
    blocks = pairs + blocks % 2;
  }
  *a.sum.as<double>() = sums[0];
}

}  // namespace ferry::ops::FERRY_TIER
