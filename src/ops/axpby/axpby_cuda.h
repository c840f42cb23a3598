// What the CUDA kernels of axpby take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct AxpbyCuda {
  const void* x;
  void* y;
  float a, b;
  Runs<2> runs;  // x, y
};

}  // namespace ferry::ops
