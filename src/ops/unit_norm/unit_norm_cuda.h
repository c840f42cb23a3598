// What the CUDA kernels of unit_norm take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct UnitNormCuda {
  const float* x;
  float* y;
  double *sums, *other;             // of each block of each matrix
  int64_t batch, elements, blocks;  // of one matrix
};

}  // namespace ferry::ops
