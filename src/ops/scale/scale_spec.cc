// What scale and scale_by promise, on every device.
#include "ops/scale/scale.h"

#include "ops/call_check.h"
#include "ops/scale/scale_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase scale_case(DType dtype, const Shape& shape, float factor, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} {} by {:g}", to_string(dtype), shape.str(), factor);
  c.inputs = {{.name = "x", .shape = shape, .dtype = dtype, .gradient = true, .rows = true}};
  c.run = [factor](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {scale(in[0], factor)};
  };
  c.reference = [factor]<class T>(const std::vector<RefArray<T>>& in) {
    return std::vector{scale_reference(in[0], T(static_cast<double>(factor)))};
  };
  c.tolerance = elementwise_tolerance(dtype, dtype == DType::kBF16 ? 0x1p-24 : 0);
  c.flops = static_cast<double>(shape.count());
  c.bytes = 2.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

OpCase scale_by_case(DType dtype, const Shape& shape) {
  OpCase c = scale_case(dtype, shape, 1);
  c.name = fmt::format("{} {} by a device number", to_string(dtype), shape.str());
  c.inputs.push_back({.name = "factor", .shape = {1}});
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {scale_by(in[0], in[1])};
  };
  c.reference = [](const auto& in) { return std::vector{scale_reference(in[0], in[1][0])}; };
  return c;
}

}  // namespace

OpSpec scale_spec() {
  OpSpec spec{.op = "scale",
              .kernels = kernel_rows({"scale"}),
              .cases = {},
              .calls = {{.kernel = "scale",
                         .bound = [](CallFacts& facts, const char* output, const RefTensor& y) {
                           return rule_elementwise(facts, output, y, 0x1p-24);
                         }}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(special_case(scale_case(t, {5, 17}, 0.5f)));
    spec.cases.push_back(special_case(scale_case(t, {5, 17}, 3)));
    spec.cases.push_back(scale_case(t, {1}, 0.3f));
    spec.cases.push_back(scale_case(t, {7, 129}, -2.5f));
    spec.cases.push_back(scale_by_case(t, {1}));
    spec.cases.push_back(scale_by_case(t, {5, 3, 33}));
    spec.cases.push_back(scale_case(t, {8192, 768}, 0.3f, true));
  }
  return spec;
}

}  // namespace ferry::ops
