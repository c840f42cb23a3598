// What the CUDA kernels of add take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct AddCuda {
  const void *a, *b;
  void* y;
  Runs<3> runs;  // a, b, y
};

}  // namespace ferry::ops
