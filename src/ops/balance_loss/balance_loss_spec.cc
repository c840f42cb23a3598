// What balance_loss, expert_counts and bias_update promise, on every device.
#include "ops/balance_loss/balance_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "ops/balance_loss/balance_loss_reference.h"
#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase loss_case(std::vector<int32_t> lengths,
                 int64_t experts,
                 int64_t top_k,
                 bool benchmark = false) {
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  constexpr float kAlpha = 0.5f;
  OpCase c;
  c.name =
      fmt::format("{} documents, {} tokens, top {} of {}", lengths.size(), tokens, top_k, experts);
  c.inputs = {{.name = "scores",
               .shape = {tokens, experts},
               .fill = InputSpec::Fill::kUniform,
               .scale = 0.48,
               .offset = 0.5,
               .gradient = true},
              {.name = "experts",
               .shape = {tokens, top_k},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kIndex,
               .scale = static_cast<double>(experts)}};
  c.run = [lengths](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Segments documents = Segments::packed(lengths, in[0].device());
    return {
        balance_loss(Routing{.experts = in[1], .weights = {}, .scores = in[0]}, documents, kAlpha)};
  };
  c.reference = [lengths](const auto& in) {
    return std::vector{
        balance_loss_reference(in[0], value_of(in[1]), lengths, static_cast<double>(kAlpha))};
  };
  // All terms are positive: the longest chain of additions, and about ten roundings besides.
  const int32_t longest = *std::max_element(lengths.begin(), lengths.end());
  const auto chain = static_cast<double>(longest + static_cast<int32_t>(lengths.size())) +
                     static_cast<double>(experts) / 8;
  c.tolerance = elementwise_tolerance(DType::kF32, (chain + 20) * 0x1p-24);
  c.row_independent = false;
  c.flops = 3.0 * static_cast<double>(tokens * experts);
  c.bytes = 4.0 * static_cast<double>(tokens * (experts + top_k));
  c.benchmark = benchmark;
  return c;
}

std::vector<double> exact(int, const std::vector<RefTensor>&, const RefTensor&) { return {0.0}; }

OpCase counts_case(int64_t tokens, int64_t top_k, int experts) {
  OpCase c;
  c.name = fmt::format("counts of [{}, {}], {} experts", tokens, top_k, experts);
  c.inputs = {{.name = "chosen",
               .shape = {tokens, top_k},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kIndex,
               .scale = static_cast<double>(experts + 2),
               .offset = -1}};  // some ids lie outside
  c.run = [experts](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {expert_counts(in[0], experts)};
  };
  c.reference = [experts](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {expert_counts_reference(in[0], experts)};
  };
  c.tolerance = exact;
  c.row_independent = false;
  return c;
}

OpCase update_case(const char* name, std::vector<double> counts) {
  constexpr float kGamma = 0.001f;
  OpCase c;
  c.name = fmt::format("bias update: {}", name);
  const auto experts = static_cast<int64_t>(counts.size());
  c.inputs = {{.name = "bias", .shape = {experts}, .scale = 0.1},
              {.name = "counts",
               .shape = {experts},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .given = counts}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    Weight bias{.name = "bias", .role = WeightRole::kSelectionBias, .global_shape = in[0].shape()};
    bias.value = Tensor::empty(in[0].shape(), DType::kF32, in[0].device());
    in[0].device().copy(bias.value.data(), in[0].data(), in[0].bytes());
    bias_update(bias, in[1], kGamma);
    return {bias.value};
  };
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {bias_update_reference(in[0], in[1], static_cast<double>(kGamma))};
  };
  c.tolerance = elementwise_tolerance(DType::kF32, 0);
  c.row_independent = false;
  return c;
}

/// Where documents lie is exact; the rest are sums of positive terms, in two orders.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const std::string_view which = output;
  if (which == "begin" || which == "document") return {0.0};
  const Shape scores = facts.shape("scores");
  const double chain = static_cast<double>(scores[0]) + static_cast<double>(scores[1]) / 8;
  return rule_elementwise(facts, output, y, 2 * (chain + 20) * 0x1p-24);
}

/// d_s_i = factor / S (f_i - sum_j f_j s_j / S), with S = sum_j s_j: what the two terms come to.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor &scores = facts.input("scores"), &begin = facts.input("begin"),
                  &document = facts.input("document"), &share = facts.input("share");
  const int64_t tokens = scores.shape[0], experts = scores.shape[1];
  const double factor = std::abs(facts.input("d_loss")[0] * facts.number("alpha")) /
                        static_cast<double>(share.shape[0]);
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const auto d = static_cast<int64_t>(document[t]);
    double sum = 0, mean = 0;
    for (int64_t i = 0; i < experts; ++i) {
      sum += scores[t * experts + i];
      mean += share[d * experts + i] * scores[t * experts + i];
    }
    const double outer = factor / (begin[d + 1] - begin[d]) / sum;
    for (int64_t i = 0; i < experts; ++i)
      bound[static_cast<size_t>(t * experts + i)] += 2 * (2 * static_cast<double>(experts) + 12) *
                                                     0x1p-24 * outer *
                                                     (share[d * experts + i] + mean / sum);
  }
  return bound;
}

}  // namespace

OpSpec balance_loss_spec() {
  OpSpec spec{.op = "balance_loss",
              .kernels = kernel_rows(
                  {"balance_loss", "balance_loss_backward", "expert_counts", "bias_update"}),
              .cases = {},
              .calls = {{.kernel = "balance_loss", .bound = call_bound},
                        {.kernel = "balance_loss_backward", .bound = backward_call_bound},
                        {.kernel = "expert_counts", .bound = rule_exact},
                        {.kernel = "bias_update",
                         .bound = [](CallFacts& facts, const char* output, const RefTensor& y) {
                           return rule_elementwise(facts, output, y, 0);
                         }}}};
  spec.cases.push_back(loss_case({5}, 8, 2));
  spec.cases.push_back(loss_case({1}, 1, 1));
  spec.cases.push_back(loss_case({3, 1, 9, 4}, 19, 3));
  spec.cases.push_back(loss_case({2, 2}, 4, 4));
  spec.cases.push_back(loss_case({7, 30}, 256, 8));
  spec.cases.push_back(loss_case({4096, 4096}, 256, 8, true));
  spec.cases.push_back(counts_case(33, 3, 7));
  spec.cases.push_back(counts_case(1, 1, 1));
  spec.cases.push_back(counts_case(0, 2, 5));
  spec.cases.push_back(update_case("some at the mean", {4, 4, 0, 8, 4}));
  spec.cases.push_back(update_case("a mean that is not whole", {1, 2, 3, 4, 4, 4, 4}));
  spec.cases.push_back(update_case("sums beyond 2^31", {2147483647, 2147483646, 2147483647}));
  spec.cases.push_back(update_case("no tokens", {0, 0, 0}));
  return spec;
}

}  // namespace ferry::ops
