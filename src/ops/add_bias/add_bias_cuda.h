// What the CUDA kernels of add_bias take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct AddBiasCuda {
  const float *x, *bias;
  void* y;
  Runs<3> runs;  // x, bias (whose rows are all the same), y
};

struct AddBiasBackwardCuda {
  const void* d_y;
  float* d_bias;
  int64_t tokens, columns, d_y_stride;
};

}  // namespace ferry::ops
