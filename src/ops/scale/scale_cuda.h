// What the CUDA kernels of scale take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct ScaleCuda {
  const void* x;
  const float* factor;  // or nullptr: the number
  void* y;
  float number;
  Runs<2> runs;  // x, y
};

}  // namespace ferry::ops
