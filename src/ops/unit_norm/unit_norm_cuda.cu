// The blocks' squares of all matrices, then each matrix's factor, then the products.
#include "ops/cuda/device_squares.h"
#include "ops/unit_norm/unit_norm_cuda.h"

namespace ferry::ops {

extern "C" __global__ void unit_norm_squares(const UnitNormCuda c) {
  const int64_t block = lanes_row();
  const bool mine = block < c.batch * c.blocks;
  const int64_t begin = mine ? block % c.blocks * kSquaresBlock : 0;
  const int64_t left = mine ? c.elements - begin : 0;
  const int64_t matrix = mine ? block / c.blocks * c.elements : 0;
  const double sum =
      square_block(c.x + matrix + begin, left < kSquaresBlock ? left : kSquaresBlock);
  if (mine && lane() == 0) c.sums[block] = sum;
}

/// A block of threads for each matrix; its factor goes where its first sum was.
extern "C" __global__ void unit_norm_factor(const UnitNormCuda c) {
  double* const sums = c.sums + blockIdx.x * c.blocks;
  const double* const sum = add_blocks(sums, c.other + blockIdx.x * c.blocks, c.blocks);
  __syncthreads();
  if (threadIdx.x == 0) *sums = 1 / (sqrt(*sum) + 1e-20);
}

extern "C" __global__ void unit_norm_scale(const UnitNormCuda c) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= c.batch * c.elements) return;
  const float factor = static_cast<float>(c.sums[i / c.elements * c.blocks]);
  c.y[i] = __fmaf_rn(factor, c.x[i], 0.0f);  // -0 becomes +0
}

}  // namespace ferry::ops
