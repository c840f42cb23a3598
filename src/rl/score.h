// How good a model is at tasks: pass@k with intervals, the vote of many answers, how long they are.
#pragma once

#include <cstdint>
#include <functional>
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
/// that are all solved still leave a doubt, and many answers to a single task are no more than one. Check: not
/// empty.
Interval interval_95(std::span<const double> values, int64_t answers_each);

/// Of one task.
struct TaskScore {
  int64_t right = 0;
  double voted = 0;    // whether the most frequent answer is right; of several, the share that is
  int64_t tokens = 0;  // of all its answers
  std::optional<int64_t> thought_tokens;  // of these, of thought, if that is known of each
  int64_t ended = 0;                      // answers that the model ended
  std::string sample;                     // its first answer
};

/// An answer to a task, whoever gave it.
struct Answer {
  AnswerParts parts;
  std::string text;  // all of it
  int64_t tokens = 0;
  std::optional<int64_t> thought_tokens;
  bool ended = false;  // by itself
};

struct Scores {
  std::vector<TaskScore> tasks;  // in their order
  ProgramTally programs;         // that judged
};

/// `answers`: equally many to each task, those to one after the other. Right is what
/// is worth 1. Errors: of Judge::judge.
Result<Scores> score_answers(std::span<const Task> tasks,
                             std::span<const Answer> answers,
                             const Judge& judge,
                             const std::function<bool()>& go_on);

/// The seed of answer `sample` to task number `task`.
uint64_t answer_seed(uint64_t seed, size_t task, int64_t sample);

struct ScoreOptions {
  int64_t samples = 1;  // answers to each task
  uint64_t seed = 1;
  RolloutOptions rollouts;
};

/// Draws the answers and scores them. Errors: of roll_out and Judge::judge.
Result<Scores> score(engine::Engine& engine,
                     std::span<const Task> tasks,
                     std::span<const TaskPrompt> prompts,
                     const ModelTexts& texts,
                     const Judge& judge,
                     const ScoreOptions& options);

/// That among k answers to a task one is right.
struct PassAt {
  int64_t k = 1;
  double share = 0;  // of the tasks, as pass_at_k estimates it of each
  Interval interval;
};

/// Of some tasks together.
struct ScoreSummary {
  int64_t tasks = 0;
  double pass_at_1 = 0;
  Interval interval;
  std::vector<PassAt> pass_at;  // for each k
  double voted = 0;
  double mean_tokens = 0;                     // of an answer
  std::optional<double> mean_thought_tokens;  // if that is known of each
  double ended = 0;                           // share of answers
};

/// `ks`: from 1 to the samples. Check: not empty.
ScoreSummary summary(std::span<const TaskScore> scores,
                     int64_t samples,
                     std::span<const int64_t> ks = {});

}  // namespace ferry::rl
