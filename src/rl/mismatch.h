// How far the distribution that answers were drawn from is from the one that is trained, where two devices compute
// them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rl/rollouts.h"

namespace ferry::rl {

/// Over all tokens of answers, with D = log p (training) - log p (when it was drawn).
struct Mismatch {
  double kl = 0;  // mean of e^D - D - 1: the divergence of training from what drew, nats a token
  double ratio_max = 1;  // the largest of e^D and its inverse
  double capped = 0;     // share of tokens whose e^D is above the cap, which their weight is cut to
  size_t worst = 0;      // the answer with the largest mean
};

/// Of each answer, its tokens' log-probabilities when they were drawn, and as training computes them by the same
/// weights. A number that is none makes the result NaN. Check: they are equally many.
Mismatch mismatch_of(std::span<const std::span<const float>> drawn,
                     std::span<const std::vector<float>> trained,
                     double cap);

/// The first op of this work on the model's device whose result is not what the CPU gives for the same inputs:
/// "rms_norm in block 2 on ascend:0: ...". Nothing: each is, or go_on() said that it is enough; it is asked before each
/// call. Every call is made again on the CPU, so this takes its time. Throws DeviceError.
std::optional<std::string> first_parting(const models::CausalLm& model,
                                         const std::function<bool()>& go_on,
                                         const std::function<void()>& work);

/// The beginnings of answers, so many tokens of each at most, by an engine that has place for all of them at once.
/// Errors: of roll_out. Throws DeviceError.
Result<std::vector<Rollout>> answer_again(models::CausalLm& model,
                                          std::span<const RolloutRequest> requests,
                                          const ModelTexts& texts,
                                          const RolloutOptions& options,
                                          int64_t tokens);

}  // namespace ferry::rl
