// What plan_experts, permute and combine promise, on every device.
#include "ops/moe_permute/moe_permute.h"

#include <cmath>
#include <string_view>

#include "ops/call_check.h"
#include "ops/moe_permute/moe_permute_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct Sizes {
  int64_t tokens, top_k;
  int experts;
  int64_t hidden;
};

std::string describe(const Sizes& s) {
  return fmt::format("{} tokens of {}, top {} of {}", s.tokens, s.hidden, s.top_k, s.experts);
}

/// Ids in [-outside, experts): negative ones are no expert's.
InputSpec chosen_input(const Sizes& s, int outside = 0) {
  return {.name = "chosen",
          .shape = {s.tokens, s.top_k},
          .dtype = DType::kI32,
          .fill = InputSpec::Fill::kIndex,
          .scale = static_cast<double>(s.experts + outside),
          .offset = static_cast<double>(-outside),
          .rows = true};
}

std::vector<double> exact(int, const std::vector<RefTensor>&, const RefTensor&) { return {0.0}; }

OpCase plan_case(const Sizes& s, int outside = 0) {
  OpCase c;
  c.name = fmt::format("plan of {}{}", describe(s), outside > 0 ? " and others" : "");
  c.inputs = {chosen_input(s, outside)};
  c.run = [s](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const ExpertPlan plan = plan_experts(in[0], s.experts);
    return {plan.offsets, plan.row_of_slot, plan.token_of_row};
  };
  c.reference = [s](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    ExpertPlanReference plan = plan_experts_reference(in[0], s.experts);
    return {plan.offsets, plan.row_of_slot, plan.token_of_row};
  };
  c.tolerance = exact;
  c.row_independent = false;
  return c;
}

OpCase permute_case(DType dtype, const Sizes& s, int outside = 0) {
  OpCase c;
  c.name = fmt::format(
      "permute {} {}{}", to_string(dtype), describe(s), outside > 0 ? " and others" : "");
  c.inputs = {chosen_input(s, outside),
              {.name = "x", .shape = {s.tokens, s.hidden}, .dtype = dtype, .gradient = true}};
  c.run = [s](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {permute(in[1], plan_experts(in[0], s.experts))};
  };
  c.reference = [s](const auto& in) {
    return std::vector{
        permute_reference(in[1], plan_experts_reference(value_of(in[0]), s.experts))};
  };
  c.tolerance = exact;
  c.row_independent = false;
  c.bytes = static_cast<double>(s.tokens * s.hidden * (1 + s.top_k)) *
            static_cast<double>(size_of(dtype));
  return c;
}

/// One rounding for each slot, relative to what the slots sum to in magnitude, then one to the
/// type.
std::vector<double> combine_bound(DType dtype,
                                  const RefTensor& x,
                                  const RefTensor& weights,
                                  const ExpertPlanReference& plan,
                                  const RefTensor& y) {
  const RefTensor size = combine_reference(absolute(x), absolute(weights), plan);
  std::vector<double> bound(y.values.size());
  for (size_t i = 0; i < bound.size(); ++i)
    bound[i] = 1.001 * (unit_roundoff(dtype) * std::abs(y.values[i]) +
                        static_cast<double>(weights.shape[1]) * 0x1p-24 * size.values[i]) +
               kLeastNormal;
  return bound;
}

OpCase combine_case(DType dtype, const Sizes& s, int outside = 0) {
  OpCase c;
  c.name = fmt::format(
      "combine {} {}{}", to_string(dtype), describe(s), outside > 0 ? " and others" : "");
  c.inputs = {
      chosen_input(s, outside),
      {.name = "x", .shape = {s.tokens * s.top_k, s.hidden}, .dtype = dtype, .gradient = true},
      {.name = "weights", .shape = {s.tokens, s.top_k}, .gradient = true}};
  c.run = [s](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {combine(in[1], in[2], plan_experts(in[0], s.experts))};
  };
  c.reference = [s](const auto& in) {
    return std::vector{
        combine_reference(in[1], in[2], plan_experts_reference(value_of(in[0]), s.experts))};
  };
  c.tolerance = [s, dtype](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    return combine_bound(dtype, in[1], in[2], plan_experts_reference(in[0], s.experts), y);
  };
  c.row_independent = false;
  c.flops = 2.0 * static_cast<double>(s.tokens * s.top_k * s.hidden);
  return c;
}

/// There and back: here a token's result is its own, whoever shares the batch.
OpCase round_trip_case(DType dtype, const Sizes& s, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("there and back {} {}", to_string(dtype), describe(s));
  c.inputs = {
      chosen_input(s),
      {.name = "x", .shape = {s.tokens, s.hidden}, .dtype = dtype, .gradient = true, .rows = true},
      {.name = "weights", .shape = {s.tokens, s.top_k}, .gradient = true, .rows = true}};
  c.run = [s](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const ExpertPlan plan = plan_experts(in[0], s.experts);
    return {combine(permute(in[1], plan), in[2], plan)};
  };
  c.reference = [s](const auto& in) {
    const ExpertPlanReference plan = plan_experts_reference(value_of(in[0]), s.experts);
    const auto rows = permute_reference(in[1], plan);
    for (const auto& x : rows.values) gradient_stored(x);  // kept between the two
    return std::vector{combine_reference(rows, in[2], plan)};
  };
  c.tolerance = [s, dtype](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    const ExpertPlanReference plan = plan_experts_reference(in[0], s.experts);
    return combine_bound(dtype, permute_reference(in[1], plan), in[2], plan, y);
  };
  c.flops = 2.0 * static_cast<double>(s.tokens * s.top_k * s.hidden);
  c.bytes = static_cast<double>(s.tokens * s.hidden * (2 + 2 * s.top_k)) *
            static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

/// As combine_bound, for the device and for the reference in f32.
std::vector<double> combine_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor size = facts.magnitudes({"x", "weights"}, output);
  const auto top_k = static_cast<double>(facts.shape("row_of_slot")[1]);
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 2.002 * top_k * 0x1p-24 * size[i];
  return bound;
}

/// d_x is one product; d_weights sums over hidden.
std::vector<double> combine_backward_bound(CallFacts& facts,
                                           const char* output,
                                           const RefTensor& y) {
  std::vector<double> bound = rule_elementwise(facts, output, y, 0x1p-23);
  if (std::string_view(output) == "d_x") return bound;
  const RefTensor size = facts.magnitudes({"x", "weights", "d_y"}, output);
  const auto hidden = static_cast<double>(facts.shape("x")[1]);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 2 * (hidden + 2) * 0x1p-24 * size[i];
  return bound;
}

}  // namespace

OpSpec moe_permute_spec() {
  OpSpec spec{.op = "moe_permute",
              .kernels = kernel_rows({"plan_experts", "permute", "combine", "combine_backward"}),
              .cases = {},
              .calls = {{.kernel = "plan_experts", .bound = rule_exact},
                        {.kernel = "permute", .bound = rule_exact},
                        {.kernel = "combine", .bound = combine_call_bound},
                        {.kernel = "combine_backward", .bound = combine_backward_bound}}};
  const Sizes odd{.tokens = 13, .top_k = 3, .experts = 7, .hidden = 37};
  const Sizes sparse{
      .tokens = 5, .top_k = 2, .experts = 64, .hidden = 16};  // most experts are empty
  const Sizes all{.tokens = 6, .top_k = 4, .experts = 4, .hidden = 33};
  const Sizes one{.tokens = 1, .top_k = 1, .experts = 1, .hidden = 1};
  const Sizes none{.tokens = 0, .top_k = 2, .experts = 3, .hidden = 8};
  for (const Sizes& s : {odd, sparse, all, one, none}) spec.cases.push_back(plan_case(s));
  spec.cases.push_back(plan_case(odd, 4));
  for (const DType t : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s : {odd, sparse, all, one, none}) {
      spec.cases.push_back(permute_case(t, s));
      spec.cases.push_back(combine_case(t, s));
      spec.cases.push_back(round_trip_case(t, s));
    }
    spec.cases.push_back(permute_case(t, odd, 4));
    spec.cases.push_back(special_case(permute_case(t, odd)));
    spec.cases.push_back(combine_case(t, odd, 4));
    spec.cases.push_back(
        round_trip_case(t, {.tokens = 8192, .top_k = 4, .experts = 32, .hidden = 768}, true));
  }
  return spec;
}

}  // namespace ferry::ops
