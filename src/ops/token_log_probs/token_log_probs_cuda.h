// What the CUDA kernel of token_log_probs takes.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct TokenLogProbsCuda {
  const float* logits;
  const int32_t* ids;
  const float* temperatures;
  float* y;
  int64_t rows, vocab, k;
};

}  // namespace ferry::ops
