#include "rl/score.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "base/random.h"

namespace ferry::rl {
namespace {

/// The share of the most frequent answers that is right: a tie is broken by chance. No answer is no vote.
double vote(const Task& task, std::span<const Answer> answers, std::span<const double> worth) {
  struct Votes {
    int64_t count = 0;
    bool right = false;
  };
  std::map<std::string, Votes> votes;
  for (size_t i = 0; i < answers.size(); ++i) {
    const std::string& answer = answers[i].parts.answer;
    if (answer.empty()) continue;
    Votes& v = votes[vote_of(task, answer)];
    ++v.count;
    v.right = v.right || worth[i] == 1;
  }
  int64_t most = 0;
  for (const auto& [answer, v] : votes) most = std::max(most, v.count);
  double tied = 0, right = 0;
  for (const auto& [answer, v] : votes)
    if (v.count == most) {
      ++tied;
      right += v.right;
    }
  return tied > 0 ? right / tied : 0;
}

}  // namespace

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  check(0 <= c && c <= n && 1 <= k && k <= n, "pass_at_k: n {}, c {}, k {}", n, c, k);
  if (n - c < k) return 1;
  double none = 1;  // of k drawn without putting back, that each is wrong
  for (int64_t i = n - c + 1; i <= n; ++i)
    none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - none;
}

Interval interval_95(std::span<const double> values, int64_t answers_each) {
  check(!values.empty(), "interval: of nothing");
  const auto tasks = static_cast<double>(values.size());
  double mean = 0, square = 0;
  for (const double v : values) mean += v;
  mean = std::min(1.0, mean / tasks);
  for (const double v : values) square += (v - mean) * (v - mean);
  const double variance = square / std::max(1.0, tasks - 1) / tasks;  // of the mean
  const double most = tasks * static_cast<double>(answers_each);
  const double yes_or_no = mean * (1 - mean);
  // Where all answers agree, those to one task may do so always; and of one task alone nobody can tell how
  // far another would be away.
  double n = tasks;
  if (yes_or_no > 0 && tasks > 1)
    n = variance > 0 ? std::clamp(yes_or_no / variance, tasks, most) : most;
  constexpr double z = 1.959963984540054;
  const double scale = 1 / (1 + z * z / n), centre = (mean + z * z / (2 * n)) * scale;
  const double half = z * std::sqrt(yes_or_no / n + z * z / (4 * n * n)) * scale;
  // Where all are alike the bound is the mean, but for a rounding.
  return {std::clamp(centre - half, 0.0, mean), std::clamp(centre + half, mean, 1.0)};
}

Result<Scores> score_answers(std::span<const Task> tasks,
                             std::span<const Answer> answers,
                             const Judge& judge,
                             const std::function<bool()>& go_on) {
  check(
      !answers.empty() && answers.size() % tasks.size() == 0, "score: {} answers", answers.size());
  const size_t samples = answers.size() / tasks.size();
  std::vector<Judge::Asked> asked;
  for (size_t i = 0; i < answers.size(); ++i)
    asked.push_back({&tasks[i / samples], &answers[i].parts, &answers[i].text});
  TRY_ASSIGN(const Judge::Judged judged, judge.judge(asked, go_on));
  Scores scores{.tasks = {}, .programs = judged.programs};
  for (size_t t = 0; t < tasks.size(); ++t) {
    const std::span<const Answer> own = answers.subspan(t * samples, samples);
    const std::span<const double> own_worth = std::span(judged.worth).subspan(t * samples, samples);
    TaskScore score{.thought_tokens = 0, .sample = own[0].text};
    for (size_t s = 0; s < samples; ++s) {
      score.right += own_worth[s] == 1;
      score.tokens += own[s].tokens;
      score.ended += own[s].ended;
      if (!own[s].thought_tokens) score.thought_tokens.reset();
      if (score.thought_tokens) *score.thought_tokens += *own[s].thought_tokens;
    }
    score.voted = vote(tasks[t], own, own_worth);
    scores.tasks.push_back(std::move(score));
  }
  return scores;
}

uint64_t answer_seed(uint64_t seed, size_t task, int64_t sample) {
  return Random(seed, RandomPurpose::kRollout, task).bits(static_cast<uint64_t>(sample));
}

Result<Scores> score(engine::Engine& engine,
                     std::span<const Task> tasks,
                     std::span<const TaskPrompt> prompts,
                     const ModelTexts& texts,
                     const Judge& judge,
                     const ScoreOptions& options) {
  check(tasks.size() == prompts.size(), "score: {} tasks", tasks.size());
  std::vector<RolloutRequest> requests;
  for (size_t t = 0; t < tasks.size(); ++t)
    for (int64_t s = 0; s < options.samples; ++s)
      requests.push_back({&prompts[t], answer_seed(options.seed, t, s)});
  TRY_ASSIGN(const std::vector<Rollout> rollouts,
             roll_out(engine, requests, texts, options.rollouts));
  std::vector<Answer> answers;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    const Rollout& r = rollouts[i];
    AnswerParts parts = take_apart(r.text, requests[i].prompt->thinking);
    std::vector<int32_t> thought;
    texts.tokenizer->encode(parts.thought, text::Tokenizer::Specials::kAsText, thought);
    answers.push_back(
        {.parts = std::move(parts),
         .text = r.text,
         .tokens = std::ssize(r.tokens),
         .thought_tokens = std::ssize(thought),
         .ended = r.finish == engine::Finish::kEnd || r.finish == engine::Finish::kNone});
  }
  const auto done = std::ssize(rollouts);
  return score_answers(tasks, answers, judge, [&] {
    return !options.rollouts.on_pass || options.rollouts.on_pass(done);
  });
}

ScoreSummary summary(std::span<const TaskScore> scores,
                     int64_t samples,
                     std::span<const int64_t> ks) {
  ScoreSummary s;
  s.tasks = std::ssize(scores);
  s.mean_thought_tokens = 0;
  const double tasks = static_cast<double>(s.tasks), answers = tasks * static_cast<double>(samples);
  std::vector<double> shares;
  for (const TaskScore& t : scores) {
    shares.push_back(static_cast<double>(t.right) / static_cast<double>(samples));
    s.pass_at_1 += static_cast<double>(t.right);
    s.voted += t.voted;
    s.mean_tokens += static_cast<double>(t.tokens);
    if (!t.thought_tokens) s.mean_thought_tokens.reset();
    if (s.mean_thought_tokens)
      *s.mean_thought_tokens += static_cast<double>(*t.thought_tokens) / answers;
    s.ended += static_cast<double>(t.ended);
  }
  for (double* of_answers : {&s.pass_at_1, &s.mean_tokens, &s.ended}) *of_answers /= answers;
  s.voted /= tasks;
  s.interval = interval_95(shares, samples);
  for (const int64_t k : ks) {
    PassAt at{.k = k};
    std::vector<double> estimates;
    for (const TaskScore& t : scores) estimates.push_back(pass_at_k(samples, t.right, k));
    for (const double e : estimates) at.share += e / tasks;
    // So many times k answers were drawn that have none in common.
    at.interval = interval_95(estimates, samples / k);
    s.pass_at.push_back(at);
  }
  return s;
}

}  // namespace ferry::rl
