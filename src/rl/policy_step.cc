#include "rl/policy_step.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>

#include "base/check.h"
#include "base/fault.h"

namespace ferry::rl {
namespace {

/// How many log-probabilities differ in a bit.
int64_t differences(std::span<const float> a, std::span<const float> b) {
  check(a.size() == b.size(), "policy_step: {} and {} log-probabilities", a.size(), b.size());
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); ++i)
    count += std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i]);
  return count;
}

}  // namespace

/// The prompt is read, the answer learnt.
std::vector<LessonBatch> PolicyStep::pack(std::span<const Lesson> lessons) const {
  std::vector<text::Lesson> texts;
  std::vector<const text::Lesson*> all;
  texts.reserve(lessons.size());
  for (const Lesson& l : lessons) {
    text::Lesson& text = texts.emplace_back();
    text.ids = l.prompt->ids;
    text.learnt.resize(text.ids.size(), false);
    text.ids.insert(text.ids.end(), l.rollout->tokens.begin(), l.rollout->tokens.end());
    text.learnt.resize(text.ids.size(), true);
    all.push_back(&text);
  }
  return pack_lessons(all, settings_.micro_batch_tokens);
}

LessonScores PolicyStep::score(models::CausalLm& by,
                               const std::vector<LessonBatch>& packed,
                               size_t lessons,
                               const std::function<void()>& alive,
                               bool keep_experts) const {
  return score_lessons(
      by,
      packed,
      lessons,
      {.given_experts = &by == &model_, .keep_experts = keep_experts, .alive = [&] {
         static_cast<void>(fault_point("rl.score"));
         alive();
       }});
}

int64_t PolicyStep::scored_otherwise(std::span<const Lesson> lessons,
                                     const std::function<void()>& alive) const {
  const LessonScores scored = score(model_, pack(lessons), lessons.size(), alive);
  int64_t count = 0;
  for (size_t l = 0; l < lessons.size(); ++l)
    count += differences(scored.log_probs[l], lessons[l].rollout->log_probs);
  return count;
}

PolicyStepReport PolicyStep::run(std::span<const Lesson> lessons,
                                 double lr,
                                 const std::function<void()>& alive) {
  const auto minibatches = static_cast<size_t>(settings_.minibatches);
  check(lessons.size() % minibatches == 0, "policy_step: {} lessons", lessons.size());
  const size_t each = lessons.size() / minibatches;
  const auto part = [&](size_t m) { return lessons.subspan(m * each, each); };
  PolicyStepReport report;
  const auto compare = [&](const std::vector<std::vector<float>>& log_probs,
                           std::span<const Lesson> of) {
    for (size_t l = 0; l < of.size(); ++l) {
      report.compared += std::ssize(log_probs[l]);
      report.mismatches += differences(log_probs[l], of[l].rollout->log_probs);
    }
  };
  std::vector<std::vector<LessonBatch>> packed;
  for (size_t m = 0; m < minibatches; ++m) packed.push_back(pack(part(m)));
  // What training gives each answer by the weights that drew it. Of answers that were drawn here the engine has said
  // that: training's own are compared with it, of later minibatches before the first update, with the experts that
  // are kept, and of the first one while it is learnt from.
  const bool elsewhere = settings_.drawn_elsewhere;
  std::vector<std::vector<float>> old;
  if (!elsewhere)
    for (const Lesson& l : lessons) old.push_back(l.rollout->log_probs);
  for (size_t m = elsewhere ? 0 : 1; m < minibatches; ++m) {
    const bool keep = settings_.keep_routing && m > 0;
    LessonScores scored = score(model_, packed[m], each, alive, keep);
    for (size_t p = 0; p < packed[m].size() && keep; ++p)
      packed[m][p].weighted.given_experts = std::move(scored.experts[p]);
    if (elsewhere)
      std::move(scored.log_probs.begin(), scored.log_probs.end(), std::back_inserter(old));
    else
      compare(scored.log_probs, part(m));
  }
  if (elsewhere) {
    std::vector<std::span<const float>> drawn;
    for (const Lesson& l : lessons) drawn.emplace_back(l.rollout->log_probs);
    report.mismatch = mismatch_of(drawn, old, settings_.loss.importance_cap);
    report.too_far = !(report.mismatch->kl <= settings_.mismatch_max);
    if (report.too_far) return report;
  }
  const double share = 1 / static_cast<double>(minibatches);
  for (size_t m = 0; m < minibatches; ++m) {
    const std::span<const Lesson> of = part(m);
    std::vector<std::vector<float>> now(each), reference(each);
    // By the weights that drew the answers these log-probabilities are known: they need not be asked again.
    if (m == 0)
      std::copy_n(old.begin(), each, now.begin());
    else
      now = score(model_, packed[m], each, alive).log_probs;
    if (reference_ != nullptr) reference = score(*reference_, packed[m], each, alive).log_probs;
    std::vector<PolicySample> samples;
    for (size_t l = 0; l < each; ++l)
      samples.push_back({.advantage = of[l].advantage,
                         .old_log_probs = old[m * each + l],
                         .log_probs = now[l],
                         .reference_log_probs = reference[l],
                         .drawn_log_probs = elsewhere
                                                ? std::span<const float>(of[l].rollout->log_probs)
                                                : std::span<const float>()});
    const PolicyLoss loss = policy_loss(samples, settings_.loss);
    report.loss += share * loss.loss;
    report.kl += share * loss.kl;
    report.clipped += share * loss.clipped;
    report.ratio_max = std::max(report.ratio_max, loss.ratio_max);
    report.masked += loss.masked;
    // Momentum, decay and what balances experts are no lesson: where none is taught, the weights stay.
    const bool tells =
        std::any_of(loss.weights.begin(), loss.weights.end(), [](const auto& of_lesson) {
          return std::any_of(
              of_lesson.begin(), of_lesson.end(), [](auto weight) { return weight != 0; });
        });
    if (!tells) {
      // Later minibatches were compared above, and answers of another device are not.
      if (m == 0 && !elsewhere) compare(score(model_, packed[m], each, alive).log_probs, of);
      continue;
    }
    std::vector<WeightedBatch> batches;
    for (LessonBatch& b : packed[m]) {
      b.weigh([&](size_t lesson, size_t n) { return loss.weights[lesson][n]; });
      batches.push_back(b.weighted);
    }
    if (batches.empty()) continue;
    const WeightedGradients g = step_.gradients(batches, [&](int64_t) { alive(); });
    std::vector<std::vector<float>> seen(each);
    for (size_t p = 0; p < packed[m].size(); ++p)
      packed[m][p].take_log_probs(g.token_losses[p], seen);
    for (size_t l = 0; l < each; ++l) {
      report.compared += std::ssize(seen[l]);
      report.mismatches += differences(seen[l], now[l]);
    }
    report.tokens += g.of.tokens;
    report.gradient_norm += share * g.of.norm;
    if (!g.of.finite || !std::isfinite(loss.loss)) {
      report.refused = fmt::format("not finite (loss {}, gradient norm {})", loss.loss, g.of.norm);
      continue;
    }
    static_cast<void>(fault_point("rl.update"));
    step_.update(lr);
    ++report.updates;
    model_.device().stream().synchronize();
  }
  return report;
}

}  // namespace ferry::rl
