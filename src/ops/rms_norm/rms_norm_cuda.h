// What the CUDA kernels of rms_norm take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct RmsNormCuda {
  const void *x, *weight;
  void* y;
  float* rstd;
  int64_t tokens, hidden, x_stride;
  float eps;
  int32_t weight_bf16;
};

struct RmsNormBackwardCuda {
  const void *x, *weight;
  const float* rstd;
  const void* d_y;
  void* d_x;
  float* d_weight;
  int64_t tokens, hidden, x_stride, d_y_stride;
  int32_t weight_bf16;
};

}  // namespace ferry::ops
