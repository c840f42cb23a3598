// What cast promises, on every device. Its float64 reference is the input itself.
#include "ops/cast/cast.h"

#include "ops/call_check.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase cast_case(DType from, DType to, const Shape& shape, double scale, bool benchmark = false) {
  OpCase c;
  c.name =
      fmt::format("{} to {} {} scale {:g}", to_string(from), to_string(to), shape.str(), scale);
  c.inputs = {
      {.name = "x", .shape = shape, .dtype = from, .scale = scale, .gradient = true, .rows = true}};
  c.run = [to](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {cast(in[0], to)}; };
  c.reference = [](const auto& in) { return std::vector{in[0]}; };
  c.tolerance = from == DType::kF32 && to == DType::kBF16
                    ? elementwise_tolerance(to, 0)
                    : [](int, const std::vector<RefTensor>&, const RefTensor&) {
                        return std::vector<double>{0.0};
                      };
  c.bytes = static_cast<double>(shape.count()) * static_cast<double>(size_of(from) + size_of(to));
  c.benchmark = benchmark;
  return c;
}

/// A narrowing rounds once; all else is exact.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  return facts.type("x") == DType::kF32 && facts.type("y") == DType::kBF16
             ? rule_elementwise(facts, output, y, 0)
             : rule_exact(facts, output, y);
}

}  // namespace

OpSpec cast_spec() {
  OpSpec spec{.op = "cast",
              .kernels = kernel_rows({"cast"}),
              .cases = {},
              .calls = {{.kernel = "cast", .bound = call_bound}}};
  for (const auto& [from, to] :
       {std::pair{DType::kF32, DType::kBF16}, std::pair{DType::kBF16, DType::kF32}}) {
    spec.cases.push_back(cast_case(from, to, {1}, 1));
    spec.cases.push_back(special_case(cast_case(from, to, {5, 17}, 1)));
    spec.cases.push_back(cast_case(from, to, {7, 129}, 1));
    spec.cases.push_back(cast_case(from, to, {3, 5, 33}, 1e30));
    spec.cases.push_back(
        cast_case(from, to, {3, 33}, 1e-37));  // near and below the smallest normal number
    spec.cases.push_back(cast_case(from, to, {8192, 768}, 1, true));
  }
  spec.cases.push_back(cast_case(DType::kF32, DType::kF32, {3, 5}, 1));  // x itself
  return spec;
}

}  // namespace ferry::ops
