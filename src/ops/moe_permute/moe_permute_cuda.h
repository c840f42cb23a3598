// What the CUDA kernels of moe_permute take.
#pragma once

#include <cstdint>

namespace ferry::ops {

inline constexpr int kPlanThreads = 1024;  // one for each expert, of which there are no more

struct PlanExpertsCuda {
  const int32_t* chosen;
  int32_t *offsets, *row_of_slot, *token_of_row;
  int64_t slots, top_k, experts;
};

struct PermuteCuda {
  const void* x;
  const int32_t* token_of_row;
  void* y;
  int64_t rows, hidden, x_stride;
};

struct CombineCuda {
  const void* x;
  const float* weights;  // or nullptr: all 1
  const int32_t* row_of_slot;
  void* y;
  int64_t tokens, hidden, top_k, x_stride;
};

struct CombineBackwardCuda {
  const void* x;
  const float* weights;
  const int32_t *row_of_slot, *used;  // used: how many rows there are
  const void* d_y;
  void* d_x;
  float* d_weights;
  int64_t slots, rows, hidden, top_k, x_stride, d_y_stride;
};

}  // namespace ferry::ops
