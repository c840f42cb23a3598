// Reinforcement learning from tasks: what a worker process does from its first step, or its last checkpoint, to the
// end. Answers are drawn by the engine from the very weights that are trained, or, on another device, from a copy.
#pragma once

#include "train/loop.h"

namespace ferry::rl {

struct Learnt {
  TrainResult run;
  std::optional<double> score_before, score_after;  // of held-out tasks
  std::optional<double> reward;                     // of the last step
  int64_t compared = 0, mismatches = 0;             // log-probabilities, in all parts of the run
  std::optional<int64_t> program_failed;            // likewise, of programs that judged
  /// The largest of a step, of answers that another device drew (rl/mismatch.h).
  std::optional<double> rollout_kl, rollout_ratio_max;
};

/// Errors and signals: as train(). A step that a signal cuts short is made again when the run goes on: its
/// answers are functions of the weights, the place in the order of tasks, and the seed.
Result<Learnt> learn(const Settings& settings, const TrainOptions& options);

}  // namespace ferry::rl
