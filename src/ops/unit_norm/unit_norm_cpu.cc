// Two passes over memory: the blocks' squares of all matrices, then the products.
#include "ops/cpu/loops.h"
#include "ops/cpu/squares.h"
#include "ops/unit_norm/unit_norm_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

int64_t elements(const UnitNormArgs& a) { return a.x.shape[1] * a.x.shape[2]; }

}  // namespace

Plan unit_norm_plan(const UnitNormArgs& a) {
  return {.workspace_bytes =
              static_cast<size_t>(a.x.shape[0] * square_blocks(elements(a))) * sizeof(double)};
}

void unit_norm(const Plan&, const UnitNormArgs& a, void* workspace, Stream&) {
  const int64_t batch = a.x.shape[0], count = elements(a), blocks = square_blocks(count);
  auto* sums = static_cast<double*>(workspace);
  const auto for_blocks = [&](auto&& f) {  // f(block of all, matrix, first element, elements)
    parallel_rows(batch * blocks, kSquaresBlock, [&](int64_t i) {
      const int64_t begin = i % blocks * kSquaresBlock, left = count - begin;
      f(i, i / blocks, i / blocks * count + begin, left < kSquaresBlock ? left : kSquaresBlock);
    });
  };
  for_blocks([&](int64_t i, int64_t, int64_t first, int64_t n) {
    sums[i] = square_block(a.x.as<float>() + first, n);
  });
  for (int64_t b = 0; b < batch; ++b)
    sums[b * blocks] = 1 / (__builtin_sqrt(add_blocks(sums + b * blocks, blocks)) + kUnitNormLeast);
  for_blocks([&](int64_t, int64_t matrix, int64_t first, int64_t length) {
    const F32x16 factor = splat(static_cast<float>(sums[matrix * blocks])), zero = splat(0);
    const float* x = a.x.as<float>() + first;
    float* y = a.y.as<float>() + first;
    for_lanes(0, length, [&](int64_t i, int n) {
      store_n(y + i, fma(factor, load_n(x + i, n), zero), n);  // -0 becomes +0
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
