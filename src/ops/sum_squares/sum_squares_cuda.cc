// The blocks' sums lie in the workspace.
#include "ops/sum_squares/sum_squares_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/sum_squares/sum_squares_kernels.h"

namespace ferry::ops::cuda {
namespace {

int64_t blocks_in(const SumSquaresArgs& a) {
  return std::max<int64_t>(blocks_of(a.x.count(), 4096), 1);
}

}  // namespace

Plan sum_squares_plan(const SumSquaresArgs& a) {
  return {.workspace_bytes = 2 * static_cast<size_t>(blocks_in(a)) * sizeof(double)};
}

void sum_squares(const Plan&, const SumSquaresArgs& a, void* workspace, Stream& stream) {
  static const Code code("sum_squares");
  check(a.sum.dtype == DType::kF64, "sum_squares: the CUDA kernel answers in F64");
  const int64_t blocks = blocks_in(a);
  auto* const sums = static_cast<double*>(workspace);
  code.launch(stream,
              "square_blocks",
              rows_grid(blocks),
              kRowsBlock,
              SquareBlocksCuda{a.x.as<float>(), sums, a.x.count(), blocks});
  code.launch(stream,
              "square_tree",
              {},
              {256},
              SquareTreeCuda{sums, sums + blocks, blocks, a.sum.as<double>()});
}

}  // namespace ferry::ops::cuda
