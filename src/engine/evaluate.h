// How well a model predicts text: bits for each original byte, as a compressor would need.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "models/causal_lm.h"

namespace ferry::engine {

struct Evaluation {
  double nats = 0;     // -log p summed over all predicted tokens
  int64_t tokens = 0;  // predicted tokens
  int64_t bytes = 0;   // original bytes of the text
  double bits_per_byte() const;
  double nats_per_token() const;
};

struct EvaluateOptions {
  int64_t context = 1024;  // tokens of a window; at most the model's positions
  double overlap = 0.5;  // part of a window that is context only, seen before and not counted again
  int64_t tokens_per_pass = 4096;
};

/// Adds up over documents of token ids (each ending as it was tokenised, with or without eos). The
/// first token of a document is predicted from `first_context` (eos: the end of the document before
/// it), so that every token is paid for. A document longer than the window is scored in overlapping
/// windows. progress(tokens scored) is called after each pass.
void evaluate(models::CausalLm& model,
              std::span<const std::vector<int32_t>> documents,
              int32_t first_context,
              const EvaluateOptions& options,
              Evaluation& sum,
              const std::function<void(int64_t)>& progress);

}  // namespace ferry::engine
