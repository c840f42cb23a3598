// What swiglu promises, on every device.
#include "ops/swiglu/swiglu.h"

#include <cmath>

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
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {swiglu_reference(in[0], in[1])};
  };
  // exp within 2 ulp, then four roundings; a sigmoid below the smallest normal number is zero.
  c.tolerance = [dtype](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = (unit_roundoff(dtype) + 8 * 0x1p-24) * (1 + 1e-3) * std::abs(y.values[i]) +
                 0x1p-126 * (1 + std::abs(in[1].values[i]) * (1 + std::abs(in[0].values[i])));
    return bound;
  };
  c.gradient_tolerance = dtype == DType::kBF16 ? 0x1p-7 : 1e-5;
  c.flops = 5.0 * static_cast<double>(shape.count());
  c.bytes = 3.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
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
  const auto halves = [rows, inner](const RefTensor& both) {
    std::vector<RefTensor> half(2, RefTensor({rows, inner}));
    for (int64_t i = 0; i < rows * inner; ++i)
      for (int64_t h = 0; h < 2; ++h)
        half[static_cast<size_t>(h)][i] = both[i / inner * 2 * inner + h * inner + i % inner];
    return half;
  };
  c.reference = [halves](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    const std::vector<RefTensor> half = halves(in[0]);
    return {swiglu_reference(half[0], half[1])};
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

}  // namespace

OpSpec swiglu_spec() {
  OpSpec spec{.op = "swiglu",
              .kernels = kernel_rows({"swiglu", "swiglu_backward"}),
              .cases = {},
              .calls = {{.kernel = "swiglu", .bound = call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(swiglu_case(t, {1, 1}, 1));
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
