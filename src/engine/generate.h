// Generates the continuation of one prompt: prefill, then one token at a time through the cache.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "models/causal_lm.h"

namespace ferry::engine {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t tokens_max = 256;
  std::vector<int32_t> end_tokens;  // generation stops at any of them
  int64_t prefill_chunk = 512;      // tokens of the prompt a pass; no bit depends on it
};

/// Calls on_token for each new token as it comes; generation stops when it returns false, at an end
/// token, or after tokens_max. Returns the new tokens (the end token excluded). Errors:
/// kInvalidInput if the prompt is empty or does not fit the model's positions; sample()'s.
Result<std::vector<int32_t>> generate(models::CausalLm& model,
                                      std::span<const int32_t> prompt,
                                      const GenerateOptions& options,
                                      const std::function<bool(const Sampled&)>& on_token);

}  // namespace ferry::engine
