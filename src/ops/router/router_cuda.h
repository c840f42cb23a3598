// What the CUDA kernels of router take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct RouterChoice {  // RouterConfig, as the device has it
  int32_t experts, top_k, groups, groups_kept;
  int32_t sigmoid, top2_sum, normalize;
  float scale;
};

struct RouterCuda {
  const float *logits, *bias;  // bias: or nullptr
  const int32_t* given;        // or nullptr: choose
  int32_t* chosen;
  float *weights, *scores;
  int32_t* kept;  // [tokens, groups_kept], if fewer than all groups are kept
  int64_t tokens, logits_stride;
  RouterChoice config;
};

struct RouterBackwardCuda {
  const float* scores;
  const int32_t* experts;
  const float *d_weights, *d_scores;  // or nullptr: zero
  float* d_logits;
  int64_t tokens;
  RouterChoice config;
};

}  // namespace ferry::ops
