// How good a model is at tasks: pass@k with intervals, the vote of many answers, how long they are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rl/rewards.h"
#include "rl/rollouts.h"

namespace ferry::rl {

/// The chance that among k of n answers, c of which are right, one is right: 1 - C(n - c, k) / C(n, k),
/// without bias (Chen et al. 2021, "Evaluating large language models trained on code").
/// Check: 0 <= c <= n, 1 <= k <= n.
double pass_at_k(int64_t n, int64_t c, int64_t k);

struct Interval {
  double low = 0, high = 0;
};

/// 95 % for the mean of `values`, one from 0 to 1 for each task: Wilson's interval for so many
/// independent yes or no as would vary like these means, at least one a task and at most `answers_each`. So tasks
/// that are all solved still leave a doubt. Check: not empty.
Interval interval_95(std::span<const double> values, int64_t answers_each);

/// Of one task.
struct TaskScore {
  int64_t right = 0;
  double voted = 0;  // whether the most frequent answer is right; of several, the share that is
  int64_t tokens = 0, thought_tokens = 0;  // of all its answers
  int64_t ended = 0;                       // answers that the model ended
  std::string sample;                      // its first answer
};

struct ScoreOptions {
  int64_t samples = 1;  // answers to each task
  uint64_t seed = 1;
  RolloutOptions rollouts;
};

/// In the order of the tasks. Answer s to task t is drawn with a seed of (seed, t, s). Right is what is
/// worth 1. Errors: of roll_out and Judge::worth.
Result<std::vector<TaskScore>> score(engine::Engine& engine,
                                     std::span<const Task> tasks,
                                     std::span<const TaskPrompt> prompts,
                                     const ModelTexts& texts,
                                     const Judge& judge,
                                     const ScoreOptions& options);

/// Of some tasks together.
struct ScoreSummary {
  int64_t tasks = 0;
  double pass_at_1 = 0;
  Interval interval;
  double pass_at_k = 0;  // k: the samples
  double voted = 0;
  double mean_tokens = 0, mean_thought_tokens = 0;  // of an answer
  double ended = 0;                                 // share of answers
};

/// Check: not empty.
ScoreSummary summary(std::span<const TaskScore> scores, int64_t samples);

}  // namespace ferry::rl
