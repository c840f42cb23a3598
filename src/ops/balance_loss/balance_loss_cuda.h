// What the CUDA kernels of balance_loss take.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct BalanceLossCuda {
  const float* scores;
  const int32_t *chosen, *position;
  int32_t *begin, *document;
  float *share, *loss;
  float *sums, *means, *losses;  // of tokens, of [documents, experts], of documents
  int64_t tokens, experts, top_k, documents;
  float alpha;
};

struct BalanceLossBackwardCuda {
  const float* scores;
  const int32_t *begin, *document;
  const float *share, *d_loss;
  float* d_scores;
  int64_t tokens, experts, documents;
  float alpha;
};

struct ExpertCountsCuda {
  const int32_t* chosen;
  int32_t* counts;
  int64_t slots, experts;
};

struct BiasUpdateCuda {
  const int32_t* counts;
  float* bias;
  int64_t experts;
  float gamma;
};

}  // namespace ferry::ops
