// What the CUDA kernels of cast take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct CastCuda {
  const void* x;
  void* y;
  Runs<2> runs;  // x, y
};

}  // namespace ferry::ops
