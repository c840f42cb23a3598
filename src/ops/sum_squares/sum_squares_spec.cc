// What sum_squares promises, on every device, as far as a tensor can carry it: rounded to f32. The
// float64 result itself is judged in sum_squares_test.cc.
#include "ops/sum_squares/sum_squares.h"

#include <algorithm>

#include "ops/call_check.h"
#include "ops/spec.h"
#include "ops/sum_squares/sum_squares_reference.h"

namespace ferry::ops {
namespace {

double sum_error(const std::vector<Shape>& shapes) {
  int64_t longest = 1;
  for (const Shape& s : shapes) longest = std::max(longest, s.count());
  return sum_squares_error(longest);
}

OpCase squares_case(const char* name,
                    const std::vector<Shape>& shapes,
                    double scale,
                    bool benchmark = false) {
  OpCase c;
  c.name = name;
  double count = 0;
  for (const Shape& s : shapes) {
    c.inputs.push_back({.name = fmt::format("x{}", c.inputs.size()), .shape = s, .scale = scale});
    count += static_cast<double>(s.count());
  }
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Tensor sums = sum_squares(in);
    const auto sum = static_cast<float>(total_of(read_together({&sums, 1})[0]).sum);
    return {Tensor::from_f32(std::vector<float>{sum}, {1}, in[0].device())};
  };
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    RefTensor sum({1});
    sum[0] = sum_squares_reference(in);
    return {sum};
  };
  c.tolerance = elementwise_tolerance(DType::kF32, sum_error(shapes));
  c.row_independent = false;
  c.flops = 2 * count;
  c.bytes = 4 * count;
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec sum_squares_spec() {
  OpSpec spec{.op = "sum_squares",
              .kernels = kernel_rows({"sum_squares"}),
              .cases = {},
              .calls = {{.kernel = "sum_squares",
                         .bound = [](CallFacts& facts, const char*, const RefTensor& sum) {
                           return std::vector<double>{2 * sum_error({facts.shape("x")}) * sum[0] +
                                                      kLeastNormal};
                         }}}};
  spec.cases.push_back(squares_case("one element", {{1}}, 1));
  spec.cases.push_back(squares_case("odd", {{7, 129}}, 1));
  spec.cases.push_back(squares_case("one block", {{4096}}, 1));
  spec.cases.push_back(squares_case("three blocks and a tail", {{3, 4099}}, 1));
  spec.cases.push_back(
      squares_case("several tensors, one empty", {{5, 33}, {0, 4}, {20000}, {1}}, 1));
  spec.cases.push_back(squares_case("a parameter", {{4096, 2048}}, 1, true));
  return spec;
}

}  // namespace ferry::ops
