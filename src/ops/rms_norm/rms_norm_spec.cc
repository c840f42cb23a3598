// What rms_norm promises, on every device.
#include <cmath>
#include <string_view>

#include "ops/call_check.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/rms_norm/rms_norm_kernels.h"
#include "ops/rms_norm/rms_norm_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase norm_case(
    DType dtype, int64_t tokens, int64_t hidden, double scale, float eps, bool benchmark = false) {
  OpCase c;
  c.name =
      fmt::format("{} [{}, {}] scale {:g} eps {:g}", to_string(dtype), tokens, hidden, scale, eps);
  c.inputs = {{.name = "x",
               .shape = {tokens, hidden},
               .dtype = dtype,
               .scale = scale,
               .gradient = true,
               .rows = true},
              {.name = "weight", .shape = {hidden}, .scale = 0.5, .offset = 1, .gradient = true}};
  c.run = [eps](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    Weight w{.name = "weight", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {rms_norm(in[0], w, eps)};
  };
  c.reference = [eps](const auto& in) {
    return std::vector{rms_norm_reference(in[0], in[1], static_cast<double>(eps))};
  };
  // The sum of squares has relative error (hidden/16 + 4) u, halved by the root; then five
  // roundings.
  c.tolerance = elementwise_tolerance(dtype, (static_cast<double>(hidden) / 32 + 7) * 0x1p-24);
  c.flops = 4.0 * static_cast<double>(tokens * hidden);
  c.bytes = 2.0 * static_cast<double>(tokens * hidden) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

/// Device and reference in f32. d_x = rstd (g - n mean(g n)), where g = d_y weight and
/// n = x rstd: a sum over hidden in any order and a few roundings. d_weight sums over tokens.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  constexpr double u = 0x1p-24;
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  const int64_t tokens = facts.shape("x")[0], hidden = facts.shape("x")[1];
  if (std::string_view(output) == "d_weight") {
    const RefTensor size = facts.magnitudes({"x", "d_y"}, output);
    for (int64_t i = 0; i < hidden; ++i)
      bound[static_cast<size_t>(i)] += 2 * static_cast<double>(tokens + 4) * u * size[i];
    return bound;
  }
  const RefTensor &x = facts.input("x"), &w = facts.input("weight"), &d_y = facts.input("d_y"),
                  &rstd = facts.input("rstd");
  for (int64_t t = 0; t < tokens; ++t) {
    double mean = 0;
    for (int64_t i = 0; i < hidden; ++i)
      mean += std::abs(d_y[t * hidden + i] * w[i] * x[t * hidden + i] * rstd[t]);
    mean /= static_cast<double>(hidden);
    for (int64_t i = 0; i < hidden; ++i)
      bound[static_cast<size_t>(t * hidden + i)] +=
          2 * u * rstd[t] *
          (static_cast<double>(hidden + 8) * std::abs(x[t * hidden + i] * rstd[t]) * mean +
           6 * std::abs(d_y[t * hidden + i] * w[i]));
  }
  return bound;
}

}  // namespace

OpSpec rms_norm_spec() {
  OpSpec spec{.op = "rms_norm",
              .kernels = kernel_rows({"rms_norm", "rms_norm_backward"}),
              .cases = {},
              .calls = {{.kernel = "rms_norm",
                         .bound =
                             [](CallFacts& facts, const char* output, const RefTensor& y) {
                               const auto hidden = static_cast<double>(facts.shape("x")[1]);
                               return rule_elementwise(
                                   facts, output, y, 2 * (hidden / 32 + 7) * 0x1p-24);
                             }},
                        {.kernel = "rms_norm_backward", .bound = backward_call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(norm_case(t, 7, 129, 1, 1e-6f));
    spec.cases.push_back(norm_case(t, 1, 16, 1, 1e-6f));
    spec.cases.push_back(norm_case(t, 33, 512, 100, 1e-6f));
    spec.cases.push_back(norm_case(t, 5, 64, 1e-3, 1e-6f));  // rows so small that eps decides
    spec.cases.push_back(norm_case(t, 3, 7168, 1, 1e-6f));   // DeepSeek V3's hidden
    spec.cases.push_back(norm_case(t, 2048, 768, 1, 1e-6f, true));
  }
  return spec;
}

}  // namespace ferry::ops
