// What the CUDA kernel of adamw takes.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct AdamWCuda {
  float *p, *m, *v;
  const float* grad;
  float decay, beta1, rest1, beta2, rest2, step_size, root, eps, grad_scale;
  Runs<4> runs;  // p, m, v, grad
};

}  // namespace ferry::ops
