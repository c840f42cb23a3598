// One sequence that grows: prompts of which each continues, or changes the end of, what came before.
// What is common to both is not computed again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
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

/// The model must outlive it. One thread.
class Session {
 public:
  explicit Session(models::CausalLm& model) : model_(&model) {}

  /// Calls on_token for each new token as it comes; generation stops when it returns false, at an
  /// end token, or after tokens_max. Returns the new tokens (the end token excluded): the same as of
  /// a session that was asked nothing before. `on_prefill`, if given, is called after each pass over
  /// the prompt, and ends it by returning false: then nothing is generated. Errors: kInvalidInput if
  /// the prompt is empty or does not fit the model's positions; sample()'s.
  Result<std::vector<int32_t>> generate(std::span<const int32_t> prompt,
                                        const GenerateOptions& options,
                                        const std::function<bool(const Sampled&)>& on_token,
                                        const std::function<bool()>& on_prefill = nullptr);

  /// Tokens of the last prompt that were there already.
  int64_t reused() const { return reused_; }

 private:
  void make_room(int64_t tokens);
  std::vector<float> step(std::span<const int32_t> tokens, bool wanted);

  models::CausalLm* model_;
  std::unique_ptr<models::KvCache> cache_;
  std::vector<int32_t> held_;  // what the cache holds
  int64_t reused_ = 0;
};

}  // namespace ferry::engine
