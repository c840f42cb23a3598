// What the CUDA kernels of sum_squares take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct SquareBlocksCuda {
  const float* x;
  double* sums;  // of each block
  int64_t count, blocks;
};

struct SquareTreeCuda {
  double *sums, *other;  // as many places each: levels go from one to the other
  int64_t blocks;
  double* sum;
};

}  // namespace ferry::ops
