// What concat promises, on every device.
#include "ops/call_check.h"
#include "ops/concat/concat.h"
#include "ops/concat/concat_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase concat_case(DType dtype, const Shape& a, const Shape& b) {
  OpCase c;
  c.name = fmt::format("{} {} {}", to_string(dtype), a.str(), b.str());
  c.inputs = {{.name = "a", .shape = a, .dtype = dtype, .gradient = true, .rows = true},
              {.name = "b", .shape = b, .dtype = dtype, .gradient = true, .rows = true}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {concat(in[0], in[1])};
  };
  c.reference = [](const auto& in) { return std::vector{concat_reference(in[0], in[1])}; };
  c.tolerance = [](int, const std::vector<RefTensor>&, const RefTensor&) {
    return std::vector<double>{1e-300};
  };
  c.bytes = 2.0 * static_cast<double>(a.count() + b.count()) * static_cast<double>(size_of(dtype));
  return c;
}

/// Strided operands: the second and the first half of one tensor.
OpCase slices_case(DType dtype) {
  OpCase c = concat_case(dtype, {5, 3, 10}, {5, 3, 10});
  c.name = fmt::format("{} slices", to_string(dtype));
  c.inputs.pop_back();
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {concat(in[0].slice(2, 3, 10), in[0].slice(2, 0, 3))};
  };
  c.reference = []<class T>(const std::vector<RefArray<T>>& in) {
    RefArray<T> a({5, 3, 7}), b({5, 3, 3});
    for (int64_t r = 0; r < 15; ++r) {
      for (int64_t i = 0; i < 7; ++i) a[r * 7 + i] = in[0][r * 10 + 3 + i];
      for (int64_t i = 0; i < 3; ++i) b[r * 3 + i] = in[0][r * 10 + i];
    }
    return std::vector{concat_reference(a, b)};
  };
  return c;
}

}  // namespace

OpSpec concat_spec() {
  OpSpec spec{.op = "concat",
              .kernels = kernel_rows({"concat"}),
              .cases = {},
              .calls = {{.kernel = "concat", .bound = rule_exact}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(special_case(concat_case(t, {5, 17}, {5, 3})));
    spec.cases.push_back(concat_case(t, {7, 5}, {7, 129}));
    spec.cases.push_back(concat_case(t, {3, 4, 512}, {3, 4, 64}));
    spec.cases.push_back(concat_case(t, {1, 1}, {1, 1}));
    spec.cases.push_back(slices_case(t));
  }
  return spec;
}

}  // namespace ferry::ops
