// Chooses the next token from logits. A function of its arguments alone: the same seed, position
// and logits give the same token, whatever else runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::engine {

struct SamplingOptions {
  double temperature = 0;  // 0: the largest logit (ties: the lowest id)
  double top_p = 1;        // keep the fewest tokens whose probabilities reach this sum
  uint64_t seed = 0;
};

/// Errors: kInvalidInput for a temperature or top_p that is negative, NaN or out of range.
Result<void> validate(const SamplingOptions& options);

struct Sampled {
  int32_t token = 0;
  double log_probability = 0;  // of the token, under the distribution it was drawn from
  /// The support after top-p, most probable first; empty if all were kept.
  std::vector<int32_t> kept = {};
};

/// logits [vocab] of the token at `position` (its own, in its sequence). Errors: kVerdict if one is
/// NaN, or the largest is not finite: whatever was chosen then would look like an answer.
Result<Sampled> sample(std::span<const float> logits,
                       const SamplingOptions& options,
                       uint64_t position);

}  // namespace ferry::engine
