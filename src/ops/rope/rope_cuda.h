// What the CUDA kernels of rope take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct RopeCuda {
  const void* x;
  const float *cos, *sin;
  const int32_t* position;
  void* y;
  int64_t rows, heads, depth, pairs, begin;  // a row: a head of a token
  int64_t x_stride[2], y_stride[2];
  int32_t interleaved, inverse;
};

}  // namespace ferry::ops
