// What the CUDA kernels of matmul take.
#pragma once

#include <cstdint>

namespace ferry::ops {

inline constexpr int kMatmulTile = 64;     // rows and columns of a block of threads
inline constexpr int kMatmulThreads = 16;  // ... each way

// On tensor cores: a block of threads makes so many rows, or few where there are few, and columns.
inline constexpr int kTensorM = 128, kTensorFewM = 16, kTensorN = 128;
inline constexpr int kTensorThreads = 256;

struct MatmulCuda {
  const void *a, *b;
  void* c;
  int64_t m, n, k;
  int64_t a_row, a_k, b_column, b_k, c_row;  // strides, in elements
  int64_t a_batch, b_batch, c_batch;
  int32_t a_bf16, b_bf16, c_bf16;
  int32_t accumulate;  // sums go on from what c holds, in f32
};

}  // namespace ferry::ops
