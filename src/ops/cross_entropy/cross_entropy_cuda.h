// What the CUDA kernels of cross_entropy take.
#pragma once

#include "ops/cuda/runs.h"

namespace ferry::ops {

struct TokenLossesCuda {  // of a chunk
  const float* logits;
  void* d_logits;  // or nullptr
  const int32_t* labels;
  const float* weights;  // or nullptr
  float* losses;
  int64_t rows, vocab, stride;  // of logits and d_logits
  float scale;
};

struct LossCuda {
  const float *losses, *weights;
  float* loss;
  int64_t tokens;
  float scale;
};

struct LossGradientCuda {
  const float* d_loss;
  void* gradient;
  Runs<1> runs;
};

}  // namespace ferry::ops
