// What unit_norm promises, on every device.
#include "ops/call_check.h"
#include "ops/spec.h"
#include "ops/sum_squares/sum_squares_reference.h"
#include "ops/unit_norm/unit_norm.h"
#include "ops/unit_norm/unit_norm_reference.h"

namespace ferry::ops {
namespace {

/// A root halves the sum's relative error. Root, sum with 1e-20 and reciprocal round once each; or
/// quotient by the largest element, root, product with that element and sum. The last operation is
/// the rounding to the result.
double relative_error(int64_t elements) { return sum_squares_error(elements) / 2 + 4 * 0x1p-24; }

OpCase norm_case(const char* name, const Shape& shape, double scale, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} {}", name, shape.str());
  c.inputs = {{.name = "x", .shape = shape, .scale = scale}};
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> { return {unit_norm(in[0])}; };
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {unit_norm_reference(in[0])};
  };
  const int64_t elements = shape[shape.rank() - 2] * shape[shape.rank() - 1];
  c.tolerance = elementwise_tolerance(DType::kF32, relative_error(elements));
  c.row_independent = false;
  c.flops = 3 * static_cast<double>(shape.count());
  c.bytes = 12 * static_cast<double>(shape.count());
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec unit_norm_spec() {
  OpSpec spec{.op = "unit_norm",
              .kernels = kernel_rows({"unit_norm"}),
              .cases = {},
              .calls = {{.kernel = "unit_norm",
                         .bound = [](CallFacts& facts, const char* output, const RefTensor& y) {
                           const Shape x = facts.shape("x");
                           return rule_elementwise(
                               facts, output, y, 2 * relative_error(x[1] * x[2]));
                         }}}};
  spec.cases.push_back(norm_case("one element", {1, 1}, 1));
  spec.cases.push_back(norm_case("odd", {7, 129}, 1));
  spec.cases.push_back(norm_case("blocks and a tail", {3, 4099}, 1));
  spec.cases.push_back(norm_case("experts", {5, 33, 70}, 1));
  spec.cases.push_back(norm_case("small", {4, 9, 31}, 1e-12));
  // Squares that float32 does not hold.
  spec.cases.push_back(norm_case("tiny", {3, 17, 40}, 1e-21));
  spec.cases.push_back(norm_case("huge", {3, 17, 40}, 1e19));
  spec.cases.push_back(norm_case("zeros", {2, 3, 5}, 0));
  spec.cases.push_back(norm_case("experts of V2-Lite", {64, 1408, 2048}, 1, true));
  return spec;
}

}  // namespace ferry::ops
