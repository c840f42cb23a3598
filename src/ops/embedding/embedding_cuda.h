// What the CUDA kernels of embedding take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct EmbeddingCuda {
  const int32_t* ids;
  const void* weight;
  void* y;
  int64_t tokens, hidden, vocab, weight_stride;
  int32_t weight_bf16, y_bf16;
};

struct EmbeddingBackwardCuda {
  const int32_t* ids;
  const void* d_y;
  float* d_weight;
  int64_t tokens, hidden, vocab, d_y_stride;
  int32_t d_y_bf16;
};

}  // namespace ferry::ops
