// Sums of squares in float64 (device code: of *_cuda.cu alone), in the order of ops/cpu/squares.h:
// blocks of 4,096 elements by sixteen lanes, blocks as a binary tree of neighbours.
#pragma once

#include "ops/cuda/device_math.h"

namespace ferry::ops {

constexpr int64_t kSquaresBlock = 4096;

/// Of one block, in each of its sixteen lanes. The whole warp must be here; a block that is not
/// there has no elements.
__device__ inline double square_block(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = lane(); i < n; i += kLanes) {
    const double v = static_cast<double>(x[i]);
    sum = sum + v * v;
  }
  __syncwarp();
  return sum_lanes(sum);
}

/// Of the blocks' sums, by all threads of one block of threads; the answer lies in the place that
/// is returned. Both arrays are overwritten.
__device__ inline const double* add_blocks(double* sums, double* other, int64_t blocks) {
  while (blocks > 1) {
    const int64_t pairs = blocks / 2;
    for (int64_t b = threadIdx.x; b < pairs; b += blockDim.x)
      other[b] = sums[2 * b] + sums[2 * b + 1];
    if (threadIdx.x == 0 && blocks % 2 == 1) other[pairs] = sums[blocks - 1];
    __syncthreads();
    double* const filled = other;
    other = sums;
    sums = filled;
    blocks = pairs + blocks % 2;
  }
  return sums;
}

}  // namespace ferry::ops
