// Blocks in parallel, then their tree (ops/cpu/squares.h).
#include "ops/cpu/loops.h"
#include "ops/cpu/squares.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops::FERRY_TIER {

Plan sum_squares_plan(const SumSquaresArgs& a) {
  return {.workspace_bytes = static_cast<size_t>(square_blocks(a.x.count())) * sizeof(double)};
}

void sum_squares(const Plan&, const SumSquaresArgs& a, void* workspace, Stream&) {
  const int64_t count = a.x.count(), blocks = square_blocks(count);
  auto* sums = static_cast<double*>(workspace);
  parallel_rows(blocks, kSquaresBlock, [&](int64_t b) {
    const int64_t begin = b * kSquaresBlock, left = count - begin;
    sums[b] = square_block(a.x.as<float>() + begin, left < kSquaresBlock ? left : kSquaresBlock);
  });
  const double sum = add_blocks(sums, blocks);
  if (a.sum.dtype == DType::kF32)
    *a.sum.as<float>() = static_cast<float>(sum);  // in place of a device that adds in f32
  else
    *a.sum.as<double>() = sum;
}

}  // namespace ferry::ops::FERRY_TIER
