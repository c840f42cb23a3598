// What router promises, on every device. Logits are drawn so that no choice is close: finite
// differences must not cross a switch, and float32 must choose as float64 does.
#include "ops/router/router.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "ops/call_check.h"
#include "ops/router/router_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

constexpr double kMargin = 1e-4;  // a difference's step moves a score by about 1e-5 at most

std::vector<double> separated_bias(int experts) {
  const Random random(3, RandomPurpose::kTest, 1);
  std::vector<double> bias;
  for (int e = 0; e < experts; ++e)
    bias.push_back(
        static_cast<double>(static_cast<float>(0.2 * random.normal(static_cast<uint64_t>(e)))));
  return bias;
}

std::vector<double> separated_logits(int64_t tokens,
                                     const RouterConfig& c,
                                     const std::vector<double>& bias_values) {
  RefTensor bias;
  bias.values = bias_values;
  std::vector<double> all;
  for (int64_t t = 0; t < tokens; ++t) {
    RefTensor row({1, c.experts});
    int attempt = 0;
    do {
      check(attempt < 10000, "router spec: no separated logits for {} experts", c.experts);
      const Random random(
          static_cast<uint64_t>(++attempt), RandomPurpose::kTest, static_cast<uint64_t>(t));
      for (int64_t e = 0; e < c.experts; ++e)
        row[e] = static_cast<double>(static_cast<float>(random.normal(static_cast<uint64_t>(e))));
    } while (router_reference(row, bias, c).margin < kMargin);
    all.insert(all.end(), row.values.begin(), row.values.end());
  }
  return all;
}

/// Scores: exp within 4 u, its argument (below 16 in size) off by 16 u, lanes of the sum, a
/// quotient.
double score_error(int64_t experts) { return (22 + static_cast<double>(experts) / 16) * 0x1p-24; }

std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  if (std::string_view(output) == "experts") return {0.0};
  const double score = 2 * score_error(facts.shape("logits")[1]);
  const auto top_k = static_cast<double>(facts.shape("weights")[1]);
  return rule_elementwise(
      facts,
      output,
      y,
      std::string_view(output) == "scores" ? score : 2 * score + 2 * (top_k + 3) * 0x1p-24);
}

/// What the terms of a gradient of scores come to, then of logits: see router_cpu.cc. Sums over the
/// chosen and over all experts, and a few roundings.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor &scores = facts.input("scores"), &experts = facts.input("experts");
  const int64_t tokens = scores.shape[0], all = scores.shape[1], top_k = experts.shape[1];
  const bool sigmoid = facts.number("sigmoid") != 0, normalize = facts.number("normalize") != 0;
  const double relative = 2 * static_cast<double>(all + 2 * top_k + 16) * 0x1p-24;
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<double> size(static_cast<size_t>(all));
    for (int64_t e = 0; facts.has("d_scores") && e < all; ++e)
      size[static_cast<size_t>(e)] = std::abs(facts.input("d_scores")[t * all + e]);
    const auto score_of = [&](int64_t j) {
      const double e = experts[t * top_k + j];
      return e >= 0 && e < static_cast<double>(all) ? scores[t * all + static_cast<int64_t>(e)] : 0;
    };
    double sum = 1e-20, mean = 0;
    for (int64_t j = 0; j < top_k; ++j) sum += score_of(j);
    if (!normalize) sum = 1;
    for (int64_t j = 0; facts.has("d_weights") && j < top_k; ++j)
      if (normalize) mean += std::abs(facts.input("d_weights")[t * top_k + j]) * score_of(j) / sum;
    for (int64_t j = 0; facts.has("d_weights") && j < top_k; ++j) {
      const double e = experts[t * top_k + j];
      if (e >= 0 && e < static_cast<double>(all))
        size[static_cast<size_t>(e)] += facts.number("scale") / sum *
                                        (std::abs(facts.input("d_weights")[t * top_k + j]) + mean);
    }
    double all_mean = 0;
    for (int64_t e = 0; e < all; ++e)
      all_mean += size[static_cast<size_t>(e)] * scores[t * all + e];
    for (int64_t e = 0; e < all; ++e) {
      const double s = scores[t * all + e], d = size[static_cast<size_t>(e)];
      // 1 - s is off by a rounding of 1.
      bound[static_cast<size_t>(t * all + e)] +=
          relative * s * (sigmoid ? d * (1 - s + 0x1p-22) : d + all_mean);
    }
  }
  return bound;
}

/// What the choice of one token's experts goes by, from the reference's scores.
class Choice {
 public:
  Choice(CallFacts& facts, const RefTensor& scores, int64_t token)
      : experts_(scores.shape[1]), groups_(static_cast<int64_t>(facts.number("groups"))) {
    const double relative = 2 * score_error(experts_);
    for (int64_t e = 0; e < experts_; ++e) {
      const double score = scores[token * experts_ + e];
      const double bias = facts.has("bias") ? facts.input("bias")[e] : 0;
      biased_.push_back(score + bias);
      error_.push_back(relative * score + 0x1p-23 * std::abs(score + bias));
    }
    judge_groups(facts);
  }

  /// Whether scores that differ from the reference's by less than the tolerance give this choice.
  bool may_be(const double* chosen, int64_t top_k) const {
    double least = INFINITY;
    std::vector<bool> taken(biased_.size());
    for (int64_t j = 0; j < top_k; ++j) {
      if (!(chosen[j] >= 0 && chosen[j] < static_cast<double>(experts_))) return false;
      const auto e = static_cast<size_t>(chosen[j]);
      if (taken[e] || group_[group_of(e)] == kDropped) return false;
      taken[e] = true;
      if (biased_[e] - error_[e] > least) return false;  // not in descending order
      least = std::min(least, biased_[e] + error_[e]);
    }
    for (size_t e = 0; e < biased_.size(); ++e)
      if (!taken[e] && group_[group_of(e)] == kKept && biased_[e] - error_[e] > least) return false;
    return true;
  }

 private:
  enum Fate { kKept, kDropped, kEither };
  size_t group_of(size_t expert) const { return expert / static_cast<size_t>(experts_ / groups_); }

  void judge_groups(CallFacts& facts) {
    const auto kept = static_cast<size_t>(facts.number("groups_kept"));
    const auto size = static_cast<size_t>(experts_ / groups_);
    group_.assign(static_cast<size_t>(groups_), kKept);
    if (kept == group_.size()) return;
    std::vector<double> worth;
    double error = 0;
    for (size_t g = 0; g < group_.size(); ++g) {
      std::vector<double> members(biased_.begin() + static_cast<long>(g * size),
                                  biased_.begin() + static_cast<long>((g + 1) * size));
      std::sort(members.rbegin(), members.rend());
      worth.push_back(members[0] + (facts.number("top2_sum") != 0 && size > 1 ? members[1] : 0));
    }
    for (const double e : error_) error = std::max(error, 3 * e);
    std::vector<double> sorted = worth;
    std::sort(sorted.rbegin(), sorted.rend());
    for (size_t g = 0; g < group_.size(); ++g)
      group_[g] = worth[g] > sorted[kept] + 2 * error       ? kKept
                  : worth[g] < sorted[kept - 1] - 2 * error ? kDropped
                                                            : kEither;
  }

  int64_t experts_, groups_;
  std::vector<double> biased_, error_;
  std::vector<Fate> group_;
};

/// A different expert is right if and only if the reference's scores differ by less than the
/// tolerance: then the weights that follow from it are expected instead.
void settle_near_ties(CallFacts& facts,
                      std::vector<RefTensor>& expected,
                      const std::vector<RefTensor>& got) {
  if (facts.has("given")) return;
  RefTensor &experts = expected[0], &weights = expected[1];
  const RefTensor& scores = expected[2];
  const int64_t top_k = experts.shape[1];
  for (int64_t t = 0; t < experts.shape[0]; ++t) {
    const double* chosen = &got[0].values[static_cast<size_t>(t * top_k)];
    if (std::equal(chosen, chosen + top_k, &experts.values[static_cast<size_t>(t * top_k)]) ||
        !Choice(facts, scores, t).may_be(chosen, top_k))
      continue;
    double sum = 0;
    for (int64_t j = 0; j < top_k; ++j) {
      experts[t * top_k + j] = chosen[j];
      weights[t * top_k + j] = scores[t * scores.shape[1] + static_cast<int64_t>(chosen[j])];
      sum += weights[t * top_k + j];
    }
    for (int64_t j = 0; j < top_k; ++j)
      weights[t * top_k + j] *=
          facts.number("scale") / (facts.number("normalize") != 0 ? sum + 1e-20 : 1.0);
  }
}

template <class T>
RefArray<T> numbers(const RefTensor& x) {
  RefArray<T> out(x.shape);
  std::copy(x.values.begin(), x.values.end(), out.values.begin());
  return out;
}

enum class Bias { kNone, kGiven };

/// `logits` empty: separated ones. Outputs: weights, scores, experts.
OpCase router_case(const char* name,
                   int64_t tokens,
                   const RouterConfig& config,
                   Bias use_bias,
                   std::vector<double> logits = {}) {
  OpCase c;
  c.name = fmt::format("{}: {} tokens, top {} of {}", name, tokens, config.top_k, config.experts);
  const std::vector<double> bias =
      use_bias == Bias::kGiven ? separated_bias(config.experts) : std::vector<double>();
  const bool ties = !logits.empty();
  if (!ties) logits = separated_logits(tokens, config, bias);
  c.inputs = {{.name = "logits",
               .shape = {tokens, config.experts},
               .fill = InputSpec::Fill::kGiven,
               .gradient = !ties,
               .rows = true,
               .given = logits}};
  if (use_bias == Bias::kGiven)
    c.inputs.push_back({.name = "bias",
                        .shape = {config.experts},
                        .fill = InputSpec::Fill::kGiven,
                        .given = bias});
  c.run = [config](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Routing r = route(in[0], in.size() > 1 ? in[1] : Tensor(), config);
    return {r.weights, r.scores, r.experts};
  };
  c.reference = [config]<class T>(const std::vector<RefArray<T>>& in) {
    const RoutingReference<T> r =
        router_reference(in[0], in.size() > 1 ? value_of(in[1]) : RefTensor(), config);
    return std::vector{r.weights, r.scores, numbers<T>(r.experts)};
  };
  c.differentiable_outputs = 2;
  // Weights: the sum of top_k scores and three roundings more. The choice is exact.
  c.tolerance = [=](int output, const std::vector<RefTensor>& in, const RefTensor& y) {
    if (output == 2) return std::vector<double>{0.0};
    const double score = score_error(config.experts);
    const double relative = output == 1 ? score : 2 * score + (config.top_k + 3) * 0x1p-24;
    return elementwise_tolerance(DType::kF32, relative)(output, in, y);
  };
  c.flops = 8.0 * static_cast<double>(tokens * config.experts);
  c.bytes = 8.0 * static_cast<double>(tokens * (config.experts + config.top_k));
  return c;
}

OpCase replay_case(int64_t tokens, const RouterConfig& config) {
  OpCase c = router_case("replay", tokens, config, Bias::kNone);
  std::vector<double> given;
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t j = 0; j < config.top_k; ++j)
      given.push_back(static_cast<double>((5 * t + 3 * j) % config.experts));
  given.front() = -1;  // outside: weight 0
  given.back() = config.experts;
  c.inputs.push_back({.name = "given",
                      .shape = {tokens, config.top_k},
                      .dtype = DType::kI32,
                      .fill = InputSpec::Fill::kGiven,
                      .rows = true,
                      .given = given});
  c.run = [config](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Routing r = route(in[0], {}, config, in[1]);
    return {r.weights, r.scores, r.experts};
  };
  c.reference = [config]<class T>(const std::vector<RefArray<T>>& in) {
    const RoutingReference<T> r = router_reference(in[0], {}, config, value_of(in[1]));
    return std::vector{r.weights, r.scores, numbers<T>(r.experts)};
  };
  return c;
}

OpCase benchmark_case(const RouterConfig& config) {
  constexpr int64_t kTokens = 8192;
  // Near ties may go either way here: the benchmark compares no choices.
  OpCase c = router_case("benchmark",
                         kTokens,
                         config,
                         Bias::kNone,
                         std::vector<double>(static_cast<size_t>(kTokens * config.experts)));
  c.inputs[0] = {
      .name = "logits", .shape = {kTokens, config.experts}, .gradient = true, .rows = true};
  c.benchmark = true;
  return c;
}

const RouterConfig kV3{.experts = 256, .top_k = 8, .groups = 8, .groups_kept = 4, .scale = 2.5f};
const RouterConfig kV2{.sigmoid = false,
                       .experts = 160,
                       .top_k = 6,
                       .groups = 8,
                       .groups_kept = 3,
                       .group_score = GroupScore::kMax,
                       .normalize = false,
                       .scale = 16};
const RouterConfig kV2Lite{.sigmoid = false, .experts = 64, .top_k = 6, .normalize = false};
const RouterConfig kSmall{.experts = 20, .top_k = 3, .groups = 5, .groups_kept = 2, .scale = 1.5f};
const RouterConfig kAll{.experts = 5, .top_k = 5};
const RouterConfig kSoftmaxNormalised{.sigmoid = false, .experts = 17, .top_k = 4};

}  // namespace

OpSpec router_spec() {
  OpSpec spec{.op = "router",
              .kernels = kernel_rows({"router", "router_backward"}),
              .cases = {},
              .calls = {{.kernel = "router", .bound = call_bound, .settle = settle_near_ties},
                        {.kernel = "router_backward", .bound = backward_call_bound}}};
  spec.cases.push_back(router_case("V3", 5, kV3, Bias::kGiven));
  spec.cases.push_back(router_case("V2", 5, kV2, Bias::kNone));
  spec.cases.push_back(router_case("V2-Lite", 9, kV2Lite, Bias::kNone));
  spec.cases.push_back(router_case("groups of four", 33, kSmall, Bias::kGiven));
  spec.cases.push_back(router_case("every expert", 7, kAll, Bias::kGiven));
  spec.cases.push_back(router_case("softmax, normalised", 7, kSoftmaxNormalised, Bias::kGiven));
  spec.cases.push_back(router_case("one expert", 1, {.experts = 1, .top_k = 1}, Bias::kNone));
  spec.cases.push_back(router_case("no tokens", 0, kSmall, Bias::kNone));
  spec.cases.push_back(router_case("ties", 2, kSmall, Bias::kNone, std::vector<double>(40, 0.5)));
  spec.cases.push_back(router_case(
      "ties of a softmax", 2, kSoftmaxNormalised, Bias::kNone, std::vector<double>(34, 0.5)));
  // e^100 is beyond float32.
  std::vector<double> large = separated_logits(3, kSoftmaxNormalised, {});
  for (double& logit : large) logit = static_cast<double>(static_cast<float>(logit + 100));
  spec.cases.push_back(
      router_case("large logits", 3, kSoftmaxNormalised, Bias::kNone, std::move(large)));
  spec.cases.push_back(replay_case(7, kSmall));
  spec.cases.push_back(replay_case(7, kSoftmaxNormalised));
  spec.cases.push_back(benchmark_case(kV3));
  spec.cases.push_back(benchmark_case({.experts = 32, .top_k = 4}));
  return spec;
}

}  // namespace ferry::ops
