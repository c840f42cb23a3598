// What swiglu promises, on every device.
#include "ops/swiglu/swiglu.h"

#include <array>
#include <cmath>
#include <string_view>

#include "base/math.h"
#include "ops/call_check.h"
#include "ops/spec.h"
#include "ops/swiglu/swiglu_reference.h"

namespace ferry::ops {
namespace {

OpCase swiglu_case(DType dtype, const Shape& shape, double scale, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} {} scale {:g}", to_string(dtype), shape.str(), scale);
  c.inputs = {{.name = "gate",
               .shape = shape,
               .dtype = dtype,
               .scale = scale,
               .gradient = true,
               .rows = true},
              {.name = "up", .shape = shape, .dtype = dtype, .gradient = true, .rows = true}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {swiglu(in[0], in[1])};
  };
  c.reference = [](const auto& in) { return std::vector{swiglu_reference(in[0], in[1])}; };
  // exp within 2 ulp, then four roundings; a sigmoid below the smallest normal number is zero.
  c.tolerance = [dtype](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = (unit_roundoff(dtype) + 8 * 0x1p-24) * (1 + 1e-3) * std::abs(y.values[i]) +
                 kLeastNormal * (1 + std::abs(in[1].values[i]) * (1 + std::abs(in[0].values[i])));
    return bound;
  };
  c.flops = 5.0 * static_cast<double>(shape.count());
  c.bytes = 3.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

/// Gates at both ends: where the sigmoid is 1, where it is below every number, and at zero.
OpCase saturating_case(DType dtype) {
  OpCase c = swiglu_case(dtype, {6, 17}, 1);
  c.name = fmt::format("{} saturating gates", to_string(dtype));
  c.inputs[0].fill = InputSpec::Fill::kGiven;
  for (int64_t i = 0; i < c.inputs[0].shape.count(); ++i)
    c.inputs[0].given.push_back(std::array{
        0.0, -0.0, 20.0, -20.0, 86.0, -86.0, 500.0, -500.0, 3e4, -3e4, 1e-30}[static_cast<size_t>(
        i % 11)]);
  return c;
}

/// gate and up are the two halves of one product's columns, as after a fused projection.
OpCase halves_case(DType dtype, int64_t rows, int64_t inner) {
  OpCase c = swiglu_case(dtype, {rows, 2 * inner}, 1);
  c.name = fmt::format("{} halves of [{}, {}]", to_string(dtype), rows, 2 * inner);
  c.inputs.resize(1);
  c.run = [inner](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {swiglu(in[0].slice(1, 0, inner), in[0].slice(1, inner, 2 * inner))};
  };
  const auto halves = [rows, inner]<class T>(const RefArray<T>& both) {
    std::vector<RefArray<T>> half(2, RefArray<T>({rows, inner}));
    for (int64_t i = 0; i < rows * inner; ++i)
      for (int64_t h = 0; h < 2; ++h)
        half[static_cast<size_t>(h)][i] = both[i / inner * 2 * inner + h * inner + i % inner];
    return half;
  };
  c.reference = [halves](const auto& in) {
    const auto half = halves(in[0]);
    return std::vector{swiglu_reference(half[0], half[1])};
  };
  c.tolerance = [halves, bound = c.tolerance](
                    int output, const std::vector<RefTensor>& in, const RefTensor& y) {
    return bound(output, halves(in[0]), y);
  };
  return c;
}

/// As the case's bound, for the device and for the reference in f32.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor &gate = facts.input("gate"), &up = facts.input("up");
  std::vector<double> bound = rule_elementwise(facts, output, y, 16 * 0x1p-24);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 0x1p-125 * (1 + std::abs(up[i]) * (1 + std::abs(gate[i])));
  return bound;
}

/// d_up = d_y silu(gate); d_gate = d_y up s (1 + gate (1 - s)) with s = sigmoid(gate), where 1 - s
/// is off by a rounding of 1.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  constexpr double u = 0x1p-24;
  const RefTensor &gate = facts.input("gate"), &up = facts.input("up"), &d_y = facts.input("d_y");
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  const bool of_up = std::string_view(output) == "d_up";
  for (int64_t i = 0; i < y.shape.count(); ++i) {
    const double g = std::abs(gate[i]), s = 1 / (1 + math::exp(-gate[i]));
    const double size =
        of_up ? std::abs(d_y[i]) * s * g : std::abs(d_y[i] * up[i]) * s * (1 + g * (1 - s + 2 * u));
    const double off = of_up ? 0 : std::abs(d_y[i] * up[i]) * s * g * 4 * u;
    bound[static_cast<size_t>(i)] +=
        24 * u * size + off + 0x1p-124 * (1 + std::abs(d_y[i]) * (1 + g) * (1 + std::abs(up[i])));
  }
  return bound;
}

}  // namespace

OpSpec swiglu_spec() {
  OpSpec spec{.op = "swiglu",
              .kernels = kernel_rows({"swiglu", "swiglu_backward"}),
              .cases = {},
              .calls = {{.kernel = "swiglu", .bound = call_bound},
                        {.kernel = "swiglu_backward", .bound = backward_call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(swiglu_case(t, {1, 1}, 1));
    spec.cases.push_back(saturating_case(t));
    spec.cases.push_back(swiglu_case(t, {7, 129}, 1));
    spec.cases.push_back(swiglu_case(t, {3, 2, 33}, 3));
    spec.cases.push_back(swiglu_case(t, {5, 64}, 60));  // both ends of the sigmoid
    spec.cases.push_back(swiglu_case(t, {0, 64}, 1));   // an expert without tokens
    spec.cases.push_back(halves_case(t, 9, 40));
    spec.cases.push_back(swiglu_case(t, {8192, 1024}, 1, true));
  }
  return spec;
}

}  // namespace ferry::ops
