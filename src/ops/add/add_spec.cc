// What add promises, on every device.
#include "ops/add/add.h"

#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase add_case(DType dtype, const Shape& shape, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} {}", to_string(dtype), shape.str());
  c.inputs = {{.name = "a", .shape = shape, .dtype = dtype, .gradient = true, .rows = true},
              {.name = "b", .shape = shape, .dtype = dtype, .gradient = true, .rows = true}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {add(in[0], in[1])}; };
  c.reference = [](const auto& in) {
    auto y = in[0];
    for (int64_t i = 0; i < y.shape.count(); ++i) y[i] = in[0][i] + in[1][i];
    return std::vector{y};
  };
  c.tolerance = elementwise_tolerance(dtype, 0x1p-24);
  c.flops = static_cast<double>(shape.count());
  c.bytes = 3.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec add_spec() {
  OpSpec spec{.op = "add",
              .kernels = kernel_rows({"add"}),
              .cases = {},
              .calls = {{.kernel = "add",
                         .bound = [](CallFacts& facts, const char* output, const RefTensor& y) {
                           return rule_elementwise(facts, output, y, 0x1p-24);
                         }}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(special_case(add_case(t, {5, 17})));
    spec.cases.push_back(add_case(t, {1, 1}));
    spec.cases.push_back(add_case(t, {7, 129}));
    spec.cases.push_back(add_case(t, {3, 5, 33}));
    spec.cases.push_back(add_case(t, {2048, 768}, true));
  }
  return spec;
}

}  // namespace ferry::ops
