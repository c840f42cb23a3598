// What add_bias promises, on every device.
#include "ops/add_bias/add_bias.h"
#include "ops/add_bias/add_bias_reference.h"
#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase bias_case(DType out, int64_t tokens, int64_t columns, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} [{}, {}]", to_string(out), tokens, columns);
  c.inputs = {{.name = "x", .shape = {tokens, columns}, .gradient = true, .rows = true},
              {.name = "bias", .shape = {columns}, .gradient = true}};
  c.run = [out](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight bias{.name = "bias", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {add_bias(in[0], bias, out)};
  };
  c.reference = [](const auto& in) { return std::vector{add_bias_reference(in[0], in[1])}; };
  c.tolerance = elementwise_tolerance(out, 0x1p-24);
  c.flops = static_cast<double>(tokens * columns);
  c.bytes = static_cast<double>(tokens * columns) * static_cast<double>(4 + size_of(out));
  c.benchmark = benchmark;
  return c;
}

/// d_bias: a sum over tokens in any order, of the device and of the reference in f32.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  const RefTensor size = facts.magnitudes({"d_y"}, output);
  const auto tokens = static_cast<double>(facts.shape("d_y")[0]);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 2 * tokens * 0x1p-24 * size[i];
  return bound;
}

}  // namespace

OpSpec add_bias_spec() {
  OpSpec spec{.op = "add_bias",
              .kernels = kernel_rows({"add_bias", "add_bias_backward"}),
              .cases = {},
              .calls = {{.kernel = "add_bias",
                         .bound =
                             [](CallFacts& facts, const char* output, const RefTensor& y) {
                               return rule_elementwise(facts, output, y, 0x1p-24);
                             }},
                        {.kernel = "add_bias_backward", .bound = backward_call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(special_case(bias_case(t, 5, 17)));
    spec.cases.push_back(bias_case(t, 1, 1));
    spec.cases.push_back(bias_case(t, 67, 129));
    spec.cases.push_back(bias_case(t, 0, 8));
    spec.cases.push_back(bias_case(t, 2048, 768, true));
  }
  return spec;
}

}  // namespace ferry::ops
