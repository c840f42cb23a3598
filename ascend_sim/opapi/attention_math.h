// Attention of one sequence and one key head: what all attention ops come down to. Plain softmax
// over whole rows, in float32.
#pragma once

#include <cstdint>
#include <functional>

#include "opapi/sums.h"

namespace ascend_sim {

/// Which keys a query row sees: [first, last), less those with hidden[key] != 0 where hidden is
/// given.
struct Visible {
  int64_t first = 0, last = 0;
  const uint8_t* hidden = nullptr;
};

/// Row-major floats. Rows are (head of the group, query position) pairs; `visible` is asked by row.
struct AttentionSizes {
  int64_t rows, keys, dim, value_dim;
};

struct AttentionOptions {
  float scale = 1;
  bool zero_blind_rows = false;  // a row that sees no key gets 0; otherwise the mean of all values
  bool no_rescale = false;       // planted: a new maximum does not rescale what was summed before
  Order order = {};
};

/// out [rows, value_dim] = softmax(scale q k^T) v; maximum and total [rows] are those of the
/// softmax.
void attend(const float* q,
            const float* k,
            const float* v,
            AttentionSizes sizes,
            const std::function<Visible(int64_t row)>& visible,
            const AttentionOptions& options,
            float* out,
            float* maximum,
            float* total);

struct AttentionGradients {
  float* dq;  // [rows, dim], written
  float* dk;  // [keys, dim], added to
  float* dv;  // [keys, value_dim], added to
};

/// The gradients from dy [rows, value_dim], the forward output and the softmax's maximum and total.
void attend_backward(const float* q,
                     const float* k,
                     const float* v,
                     const float* dy,
                     const float* out,
                     const float* maximum,
                     const float* total,
                     AttentionSizes sizes,
                     const std::function<Visible(int64_t row)>& visible,
                     const AttentionOptions& options,
                     const AttentionGradients& gradients);

}  // namespace ascend_sim
