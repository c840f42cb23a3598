// What router promises, on every device. Logits are drawn so that no choice is close: finite
// differences must not cross a switch, and float32 must choose as float64 does.
#include "ops/router/router.h"

#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "ops/router/router_reference.h"

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
  c.reference = [config](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    RoutingReference r = router_reference(in[0], in.size() > 1 ? in[1] : RefTensor(), config);
    return {r.weights, r.scores, r.experts};
  };
  c.differentiable_outputs = 2;
  // Scores: exp within 4 u, its argument (below 16 in size) off by 16 u, lanes of the sum, a
  // quotient. Weights: the sum of top_k of them and three roundings more. The choice is exact.
  const double score_error = (22 + config.experts / 16) * 0x1p-24;
  c.tolerance = [=](int output, const std::vector<RefTensor>& in, const RefTensor& y) {
    if (output == 2) return std::vector<double>{0.0};
    const double relative =
        output == 1 ? score_error : 2 * score_error + (config.top_k + 3) * 0x1p-24;
    return elementwise_tolerance(DType::kF32, relative)(output, in, y);
  };
  c.gradient_tolerance = 1e-5;
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
  c.reference = [config](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    RoutingReference r = router_reference(in[0], {}, config, in[1]);
    return {r.weights, r.scores, r.experts};
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
  OpSpec spec{.op = "router", .kernels = router_kernels(), .cases = {}};
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
