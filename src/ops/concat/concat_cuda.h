// What the CUDA kernels of concat take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct ConcatCuda {  // one of the two parts
  const void* x;
  void* y;
  Runs<2> runs;  // x, and its columns of y
};

}  // namespace ferry::ops
