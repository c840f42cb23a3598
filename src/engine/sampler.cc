#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/math.h"
#include "base/random.h"

namespace ferry::engine {
namespace {

int32_t largest(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best]) best = i;
  return static_cast<int32_t>(best);
}

double log_sum_exp(std::span<const float> logits, double max, double inverse_temperature) {
  double sum = 0;
  for (const float l : logits)
    sum += math::exp((static_cast<double>(l) - max) * inverse_temperature);
  return math::log(sum);
}

/// The logits after bias and penalties; empty if there are none of these.
std::vector<float> adjusted(std::span<const float> logits,
                            const SamplingOptions& o,
                            const TextBefore& before) {
  if (o.logit_bias.empty() && !o.repeats_cost() && !o.answers_cost()) return {};
  std::vector<float> out(logits.begin(), logits.end());
  const auto known = [&](int32_t id) { return id >= 0 && id < std::ssize(out); };
  for (const auto& [id, bias] : o.logit_bias)
    if (known(id)) out[static_cast<size_t>(id)] += static_cast<float>(bias);
  if (o.repeats_cost()) {
    const auto penalty = static_cast<float>(o.repetition_penalty);
    for (const auto& [id, unused] : before.seen()) {
      if (!known(id)) continue;
      float& l = out[static_cast<size_t>(id)];
      l = l > 0 ? l / penalty : l * penalty;
    }
  }
  if (o.answers_cost())
    for (const auto& [id, times] : before.answered())
      if (known(id))
        out[static_cast<size_t>(id)] -= static_cast<float>(
            o.presence_penalty + o.frequency_penalty * static_cast<double>(times));
  return out;
}

/// Ids from the most probable on, sorted only as far as somebody looks: few as a rule. Ties go to
/// the lower id, so the order is total.
class ByLogit {
 public:
  explicit ByLogit(std::span<const float> logits) : logits_(logits), order_(logits.size()) {
    std::iota(order_.begin(), order_.end(), 0);
  }
  int32_t operator[](size_t i) {
    while (i >= sorted_) {
      const size_t end = std::min(order_.size(), std::max<size_t>(64, 3 * sorted_));
      std::partial_sort(order_.begin() + static_cast<long>(sorted_),
                        order_.begin() + static_cast<long>(end),
                        order_.end(),
                        [&](int32_t a, int32_t b) {
                          const float x = logits_[static_cast<size_t>(a)],
                                      y = logits_[static_cast<size_t>(b)];
                          return x > y || (x == y && a < b);
                        });
      sorted_ = end;
    }
    return order_[i];
  }
  size_t size() const { return order_.size(); }
  /// The first `count`, which were looked at.
  std::vector<int32_t> take(size_t count) {
    order_.resize(count);
    return std::move(order_);
  }

 private:
  std::span<const float> logits_;
  std::vector<int32_t> order_;
  size_t sorted_ = 0;
};

/// Of logits that are what they are to be, and of which any may be chosen.
Sampled sample_of(std::span<const float> logits,
                  const SamplingOptions& options,
                  uint64_t position) {
  const int32_t best = largest(logits);
  // Nothing is drawn: a sum over the vocabulary, which nobody asks for, would be a tenth of a pass.
  if (options.temperature == 0) return Sampled{.token = best, .log_probability = 0};
  const double max = static_cast<double>(logits[static_cast<size_t>(best)]);
  const double inverse = 1 / options.temperature;
  const double normaliser = log_sum_exp(logits, max, inverse);
  const auto probability = [&](int32_t id) {
    return math::exp((static_cast<double>(logits[static_cast<size_t>(id)]) - max) * inverse -
                     normaliser);
  };
  const double draw = Random(options.seed, RandomPurpose::kSample, position).uniform(0);
  // The first token, in this order, at which the probabilities before and of it exceed the draw.
  const auto drawn = [&](const std::vector<int32_t>& order, double mass) {
    double sum = 0;
    for (const int32_t id : order) {
      sum += probability(id);
      if (sum > draw * mass) return id;
    }
    return order.back();
  };

  if (options.top_p == 1 && options.top_k == 0 && options.min_p == 0) {
    std::vector<int32_t> all(logits.size());
    std::iota(all.begin(), all.end(), 0);
    const int32_t chosen = drawn(all, 1);
    return Sampled{chosen, math::log(probability(chosen)), {}};
  }
  ByLogit order(logits);
  size_t most = order.size();
  double reach = options.top_p;
  if (options.top_k > 0) {
    most = std::min(most, static_cast<size_t>(options.top_k));
    if (options.top_p < 1) {  // of those that top_k keeps
      double sum = 0;
      for (size_t i = 0; i < most; ++i) sum += probability(order[i]);
      reach *= sum;
    }
  }
  const double least = options.min_p * probability(best);
  double mass = 0;
  size_t kept = 0;
  while (kept < most &&
         (kept == 0 || ((options.top_p == 1 || mass < reach) && probability(order[kept]) >= least)))
    mass += probability(order[kept++]);
  Sampled s;
  s.kept = order.take(kept);
  s.token = drawn(s.kept, mass);
  s.log_probability = math::log(probability(s.token) / mass);
  return s;
}

}  // namespace

Result<void> validate(const SamplingOptions& o, int64_t vocabulary) {
  if (!(o.temperature >= 0 && o.temperature <= 100))
    return fail(Code::kInvalidInput,
                "temperature {}: must be from 0 (the most probable token) to 100",
                o.temperature);
  if (!(o.top_p > 0 && o.top_p <= 1))
    return fail(Code::kInvalidInput, "top-p {}: must be above 0 and at most 1", o.top_p);
  if (o.top_k < 0)
    return fail(Code::kInvalidInput, "top-k {}: must be 0 (all tokens) or more", o.top_k);
  if (!(o.min_p >= 0 && o.min_p <= 1))
    return fail(Code::kInvalidInput, "min-p {}: must be from 0 to 1", o.min_p);
  if (!(o.repetition_penalty >= 0.01 && o.repetition_penalty <= 100))
    return fail(Code::kInvalidInput,
                "repetition penalty {}: must be from 0.01 to 100 (1: none)",
                o.repetition_penalty);
  for (const auto& [name, value] :
       {std::pair{"presence", o.presence_penalty}, {"frequency", o.frequency_penalty}})
    if (!(std::abs(value) <= 100))
      return fail(Code::kInvalidInput, "{} penalty {}: must be from -100 to 100", name, value);
  for (const auto& [id, bias] : o.logit_bias) {
    if (id < 0)
      return fail(Code::kInvalidInput, "logit bias of token {}: ids of tokens begin at 0", id);
    if (id >= vocabulary)
      return fail(Code::kInvalidInput,
                  "logit bias of token {}: the vocabulary has {} tokens",
                  id,
                  vocabulary);
    if (!(std::abs(bias) <= 1000))
      return fail(
          Code::kInvalidInput, "logit bias {} of token {}: must be from -1000 to 1000", bias, id);
  }
  return {};
}

void TextBefore::follow(std::span<const int32_t> tokens, int64_t prompt) {
  if (tokens.size() < counted_) *this = {};
  for (; counted_ < tokens.size(); ++counted_) {
    ++seen_[tokens[counted_]];
    if (static_cast<int64_t>(counted_) >= prompt) ++answered_[tokens[counted_]];
  }
}

Result<void> check_logits(std::span<const float> logits, uint64_t position) {
  check(!logits.empty(), "sample: no logits");
  const bool nan = std::any_of(logits.begin(), logits.end(), [](float l) { return std::isnan(l); });
  if (nan || !std::isfinite(logits[static_cast<size_t>(largest(logits))]))
    return fail(Code::kVerdict,
                "position {}: the model answers with {}: its weights are damaged, or the device "
                "computes wrongly; ferry verify tells which",
                position,
                nan ? "NaN" : "infinite numbers");
  return {};
}

Result<Sampled> sample(std::span<const float> given,
                       const SamplingOptions& options,
                       uint64_t position,
                       const TextBefore& before,
                       std::span<const int32_t> among) {
  // Judged as the model gave them: what a request asks for is not the model's fault.
  TRY(check_logits(given, position));
  const std::vector<float> changed = adjusted(given, options, before);
  const std::span<const float> logits = changed.empty() ? given : changed;
  if (among.empty()) return sample_of(logits, options, position);
  std::vector<float> chosen_from;
  chosen_from.reserve(among.size());
  for (const int32_t id : among) chosen_from.push_back(logits[static_cast<size_t>(id)]);
  Sampled s = sample_of(chosen_from, options, position);
  s.token = among[static_cast<size_t>(s.token)];
  for (int32_t& id : s.kept) id = among[static_cast<size_t>(id)];
  return s;
}

std::vector<int32_t> largest_logits(std::span<const float> logits, int64_t count) {
  if (count == 0) return {};  // a list of the vocabulary would be made for nobody
  ByLogit order(logits);
  const size_t kept = std::min(order.size(), static_cast<size_t>(count));
  for (size_t i = 0; i < kept; ++i) static_cast<void>(order[i]);
  return order.take(kept);
}

}  // namespace ferry::engine
