// What the CUDA kernels of swiglu take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct SwigluCuda {
  const void *gate, *up;
  void* y;
  Runs<3> runs;  // gate, up, y
};

struct SwigluBackwardCuda {
  const void *gate, *up, *d_y;
  void *d_gate, *d_up;
  Runs<5> runs;  // in this order
};

}  // namespace ferry::ops
