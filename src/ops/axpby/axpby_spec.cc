// What axpby promises, on every device.
#include "ops/axpby/axpby.h"

#include <cmath>

#include "ops/axpby/axpby_reference.h"
#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase axpby_case(
    DType x_type, DType y_type, const Shape& shape, float a, float b, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format(
      "{} into {} {} a {:g} b {:g}", to_string(x_type), to_string(y_type), shape.str(), a, b);
  c.inputs = {{.name = "x", .shape = shape, .dtype = x_type, .rows = true},
              {.name = "y", .shape = shape, .dtype = y_type, .rows = true}};
  c.run = [a, b](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    // Memory that is not to be read stays as it came (NaN, between guard bytes).
    const Tensor y = Tensor::empty(in[1].shape(), in[1].dtype(), in[1].device());
    if (b != 0) y.device().copy(y.data(), in[1].data(), in[1].bytes());
    axpby(a, in[0], b, y);
    return {y};
  };
  c.reference = [a, b](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {axpby_reference(static_cast<double>(a), in[0], static_cast<double>(b), in[1])};
  };
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    // b y is rounded, and a x where it is not fused into the sum; then the sum, then to y's type.
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = 1.001 * ((unit_roundoff(y_type) + 0x1p-24) * std::abs(y.values[i]) +
                          0x1p-24 * std::abs(static_cast<double>(a) * in[0].values[i]) +
                          0x1p-24 * std::abs(static_cast<double>(b) * in[1].values[i])) +
                 kLeastNormal;
    return bound;
  };
  c.flops = 3.0 * static_cast<double>(shape.count());
  c.bytes = static_cast<double>(shape.count()) *
            static_cast<double>(size_of(x_type) + 2 * size_of(y_type));
  c.benchmark = benchmark;
  return c;
}

/// As the case's bound, for the device and for the reference in f32.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& next) {
  const RefTensor& x = facts.input("x");
  const double a = facts.number("a"), b = facts.number("b");
  std::vector<double> bound = rule_elementwise(facts, output, next, 0x1p-23);
  for (int64_t i = 0; i < next.shape.count(); ++i) {
    const double old = b == 0 ? 0 : b * facts.input("y")[i];  // memory that is not read
    bound[static_cast<size_t>(i)] += 0x1p-23 * (std::abs(a * x[i]) + std::abs(old));
  }
  return bound;
}

}  // namespace

OpSpec axpby_spec() {
  OpSpec spec{.op = "axpby",
              .kernels = kernel_rows({"axpby"}),
              .cases = {},
              .calls = {{.kernel = "axpby", .bound = call_bound}}};
  for (const DType x : {DType::kF32, DType::kBF16})
    for (const DType y : {DType::kF32, DType::kBF16}) {
      spec.cases.push_back(axpby_case(x, y, {1}, 1, 1));
      spec.cases.push_back(axpby_case(x, y, {7, 129}, 0.3f, -4.775f));
      spec.cases.push_back(axpby_case(x, y, {3, 5, 33}, 2.0315f, 0));
      spec.cases.push_back(axpby_case(x, y, {2048, 2048}, 1, 0.95f, true));
    }
  return spec;
}

}  // namespace ferry::ops
