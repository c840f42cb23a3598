#include "rl/policy_step.h"

#include <algorithm>
#include <bit>
#include <cmath>

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

/// A micro-batch: whole texts, one after the other.
struct PolicyStep::Packed {
  struct Place {
    size_t lesson;
    size_t row;  // from which its answer's first token is predicted
  };
  WeightedBatch batch;
  std::vector<Place> places;

  /// The answers' part of what is there for each row.
  void take(const std::vector<float>& losses,
            std::span<const Lesson> lessons,
            std::vector<std::vector<float>>& log_probs) const {
    for (const Place& p : places)
      for (size_t t = 0; t < lessons[p.lesson].rollout->tokens.size(); ++t)
        log_probs[p.lesson].push_back(-losses[p.row + t]);
  }
};

/// By a pass without gradient.
struct PolicyStep::Scored {
  std::vector<std::vector<float>> log_probs;  // of each lesson's answer
  std::vector<std::vector<Tensor>> experts;   // of each micro-batch, in layer order
};

std::vector<PolicyStep::Packed> PolicyStep::pack(std::span<const Lesson> lessons) const {
  std::vector<Packed> packed;
  for (size_t l = 0; l < lessons.size(); ++l) {
    const std::vector<int32_t>&prompt = lessons[l].prompt->ids,
          &answer = lessons[l].rollout->tokens;
    if (answer.empty()) continue;
    const auto length = static_cast<int64_t>(prompt.size() + answer.size() - 1);
    if (packed.empty() ||
        std::ssize(packed.back().batch.batch.tokens) + length > settings_.micro_batch_tokens)
      packed.emplace_back();
    data::Batch& b = packed.back().batch.batch;
    packed.back().places.push_back({l, b.tokens.size() + prompt.size() - 1});
    b.tokens.insert(b.tokens.end(), prompt.begin(), prompt.end());
    b.tokens.insert(b.tokens.end(), answer.begin(), answer.end() - 1);
    b.labels.insert(b.labels.end(), prompt.size() - 1, -1);
    b.labels.insert(b.labels.end(), answer.begin(), answer.end());
    b.segment_lengths.push_back(static_cast<int32_t>(length));
  }
  return packed;
}

PolicyStep::Scored PolicyStep::score(models::CausalLm& by,
                                     const std::vector<Packed>& packed,
                                     std::span<const Lesson> lessons,
                                     const std::function<void()>& alive) const {
  Scored scored{.log_probs = std::vector<std::vector<float>>(lessons.size()), .experts = {}};
  Device& device = by.device();
  for (const Packed& p : packed) {
    const data::Batch& b = p.batch.batch;
    const Shape shape = {std::ssize(b.tokens)};
    models::ForwardTrace trace;
    models::ForwardOptions options;
    if (&by == &model_) options.given_experts = p.batch.given_experts;
    const Tensor hidden = by.forward(Tensor::from_i32(b.tokens, shape, device),
                                     ops::Segments::packed(b.segment_lengths, device),
                                     options,
                                     &trace);
    p.take(by.token_losses(hidden, Tensor::from_i32(b.labels, shape, device)).to_f32(),
           lessons,
           scored.log_probs);
    scored.experts.push_back(std::move(trace.experts));
    static_cast<void>(fault_point("rl.score"));
    alive();
  }
  return scored;
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
  std::vector<std::vector<Packed>> packed;
  for (size_t m = 0; m < minibatches; ++m) packed.push_back(pack(part(m)));
  // Before the first update, later minibatches: training's log-probabilities by the weights that drew them,
  // and the experts. (The first one's are compared while it is learnt from.)
  for (size_t m = 1; m < minibatches; ++m) {
    Scored drawn = score(model_, packed[m], part(m), alive);
    compare(drawn.log_probs, part(m));
    for (size_t p = 0; p < packed[m].size() && settings_.keep_routing; ++p)
      packed[m][p].batch.given_experts = std::move(drawn.experts[p]);
  }
  const double share = 1 / static_cast<double>(minibatches);
  for (size_t m = 0; m < minibatches; ++m) {
    const std::span<const Lesson> of = part(m);
    std::vector<std::vector<float>> now(each), reference(each);
    // The weights that drew the answers gave these log-probabilities: they need not be asked again.
    if (m == 0)
      for (size_t l = 0; l < each; ++l) now[l] = of[l].rollout->log_probs;
    else
      now = score(model_, packed[m], of, alive).log_probs;
    if (reference_ != nullptr) reference = score(*reference_, packed[m], of, alive).log_probs;
    std::vector<PolicySample> samples;
    for (size_t l = 0; l < each; ++l)
      samples.push_back({.advantage = of[l].advantage,
                         .old_log_probs = of[l].rollout->log_probs,
                         .log_probs = now[l],
                         .reference_log_probs = reference[l]});
    const PolicyLoss loss = policy_loss(samples, settings_.loss);
    report.loss += share * loss.loss;
    report.kl += share * loss.kl;
    report.clipped += share * loss.clipped;
    report.ratio_max = std::max(report.ratio_max, loss.ratio_max);
    report.masked += loss.masked;
    std::vector<WeightedBatch> batches;
    for (Packed& p : packed[m]) {
      p.batch.weights.assign(p.batch.batch.tokens.size(), 0);
      for (const Packed::Place& place : p.places)
        for (size_t t = 0; t < loss.weights[place.lesson].size(); ++t)
          p.batch.weights[place.row + t] = static_cast<float>(loss.weights[place.lesson][t]);
      batches.push_back(p.batch);
    }
    if (batches.empty()) continue;
    const WeightedGradients g = step_.gradients(batches, [&](int64_t) { alive(); });
    std::vector<std::vector<float>> seen(each);
    for (size_t p = 0; p < packed[m].size(); ++p) packed[m][p].take(g.token_losses[p], of, seen);
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
