// Chooses the next token from logits. A function of its arguments alone: the same seed, position,
// text and logits give the same token, whatever else runs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"

namespace ferry::engine {

/// In the order in which they act: bias, penalties, temperature, top_k, top_p, min_p.
struct SamplingOptions {
  double temperature = 0;  // 0: the largest logit (ties: the lowest id)
  double top_p = 1;   // keep the fewest tokens whose probabilities reach this share of all kept
  int64_t top_k = 0;  // keep so many of the most probable; 0: all
  double min_p = 0;   // keep those at least so probable, relative to the most probable
  double repetition_penalty =
      1;                        // logits of tokens seen are divided by it, negative ones multiplied
  double presence_penalty = 0;  // taken from logits of tokens that were answered
  double frequency_penalty = 0;                             // the same, as often as they were
  std::vector<std::pair<int32_t, double>> logit_bias = {};  // (token, what is added to its logit)
  uint64_t seed = 0;
  bool repeats_cost() const { return repetition_penalty != 1; }
  bool answers_cost() const { return presence_penalty != 0 || frequency_penalty != 0; }
};

/// Errors: kInvalidInput for a number that is NaN or out of range, and for biases of tokens that are
/// not in a vocabulary of this size.
Result<void> validate(const SamplingOptions& options, int64_t vocabulary = INT32_MAX);

/// How often each token stands before the one that is chosen, which penalties look at. It follows a text as that
/// grows: a choice takes as long as there are different tokens in it, not as it is long.
class TextBefore {
 public:
  /// `tokens`: prompt and answer, `prompt` of them the prompt's. Those beyond what was counted are added; where the
  /// text is shorter (a pass that failed had chosen more), all are counted anew.
  void follow(std::span<const int32_t> tokens, int64_t prompt);
  using Counts = std::unordered_map<int32_t, int64_t>;
  const Counts& seen() const { return seen_; }
  const Counts& answered() const { return answered_; }

 private:
  Counts seen_, answered_;
  size_t counted_ = 0;
};

struct Sampled {
  int32_t token = 0;
  /// Of the token, under the distribution it was drawn from: 0 where it was the most probable one that
  /// was wanted (temperature 0).
  double log_probability = 0;
  /// Those it was drawn from, most probable first; empty if all were kept.
  std::vector<int32_t> kept = {};
};

/// Errors: kVerdict if a logit is NaN, or the largest is not finite: whatever was chosen or reported
/// then would look like an answer.
Result<void> check_logits(std::span<const float> logits, uint64_t position);

/// logits [vocab] of the token at `position` (its own, in its sequence). Errors: of check_logits().
Result<Sampled> sample(std::span<const float> logits,
                       const SamplingOptions& options,
                       uint64_t position,
                       const TextBefore& before = {},
                       std::span<const int32_t> among = {});

/// The ids of the `count` largest logits, largest first (ties: the lower id first).
std::vector<int32_t> largest_logits(std::span<const float> logits, int64_t count);

}  // namespace ferry::engine
