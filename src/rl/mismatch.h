// How far the distribution that answers were drawn from is from the one that is trained, where two devices compute
// them.
#pragma once

#include <cstdint>
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

/// The first op, of those that answering the requests at once launches on the model's device, whose result is not what
/// the CPU gives for the same inputs: "rms_norm in block 2 on ascend:0: ...". Nothing: each is. Every call is made
/// again on the CPU, so this takes its time; `tokens`: so many of each answer at most. Throws DeviceError.
std::optional<std::string> first_parting(models::CausalLm& model,
                                         std::span<const RolloutRequest> requests,
                                         const ModelTexts& texts,
                                         const RolloutOptions& options,
                                         int64_t tokens);

}  // namespace ferry::rl
