// Sixteen lanes for each block of elements; then one block of threads adds the blocks.
#include "ops/cuda/device_squares.h"
#include "ops/sum_squares/sum_squares_cuda.h"

namespace ferry::ops {

extern "C" __global__ void square_blocks(const SquareBlocksCuda c) {
  const int64_t block = lanes_row();
  const bool mine = block < c.blocks;
  const int64_t begin = mine ? block * kSquaresBlock : 0, left = mine ? c.count - begin : 0;
  const double sum = square_block(c.x + begin, left < kSquaresBlock ? left : kSquaresBlock);
  if (mine && lane() == 0) c.sums[block] = sum;
}

extern "C" __global__ void square_tree(const SquareTreeCuda c) {
  const double* const sum = add_blocks(c.sums, c.other, c.blocks);
  if (threadIdx.x == 0) *c.sum = *sum;
}

}  // namespace ferry::ops
