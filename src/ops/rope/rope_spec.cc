// What rope promises, on every device.
#include "ops/rope/rope.h"

#include <algorithm>
#include <cmath>

#include "ops/call_check.h"
#include "ops/rope/rope_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

constexpr int64_t kPositions = 50;

OpCase rope_case(DType dtype,
                 const Shape& shape,
                 int64_t begin,
                 int64_t dim,
                 bool interleaved,
                 bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} {} columns {}+{} {}",
                       to_string(dtype),
                       shape.str(),
                       begin,
                       dim,
                       interleaved ? "interleaved" : "halves");
  const Shape table = {kPositions, dim / 2};
  c.inputs = {{.name = "x", .shape = shape, .dtype = dtype, .gradient = true, .rows = true},
              {.name = "cos", .shape = table, .fill = InputSpec::Fill::kUniform},
              {.name = "sin", .shape = table, .fill = InputSpec::Fill::kUniform},
              {.name = "position",
               .shape = {shape[0]},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kIndex,
               .scale = kPositions,
               .rows = true}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const std::vector<int32_t> position = in[3].to_i32();
    const Segments segments =
        Segments::cached(position, std::vector<int32_t>(position.size()), in[3].device());
    return {rope(in[0], {in[1], in[2]}, segments, begin, interleaved)};
  };
  c.reference = [=](const auto& in) {
    return std::vector{rope_reference(in[0], in[1], in[2], in[3], begin, interleaved)};
  };
  // Two products and their sum, each rounded; |cos|, |sin| <= 1, so both products are at most the
  // largest x.
  c.tolerance = [dtype](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    double largest = 0;
    for (const double v : in[0].values) largest = std::max(largest, std::abs(v));
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] = 4 * 0x1p-24 * largest + unit_roundoff(dtype) * std::abs(y.values[i]) * 1.001;
    return bound;
  };
  c.flops = 3.0 * static_cast<double>(shape.count()) /
            static_cast<double>(shape[shape.rank() - 1]) * static_cast<double>(dim);
  c.bytes = 2.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  c.benchmark = benchmark;
  return c;
}

/// As the case's bound, for the device and for the reference in f32; each row has its own largest
/// x.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor& x = facts.input("x");
  const int64_t columns = x.shape[x.shape.rank() - 1];
  const double u = unit_roundoff(facts.type(output));
  std::vector<double> bound(y.values.size());
  for (int64_t row = 0; row < y.shape.count() / columns; ++row) {
    double largest = 0;
    for (int64_t i = row * columns; i < (row + 1) * columns; ++i)
      largest = std::max(largest, std::abs(x[i]));
    for (int64_t i = row * columns; i < (row + 1) * columns; ++i)
      bound[static_cast<size_t>(i)] = 8 * 0x1p-24 * largest + u * std::abs(y[i]) * 1.001;
  }
  return bound;
}

}  // namespace

OpSpec rope_spec() {
  OpSpec spec{.op = "rope",
              .kernels = kernel_rows({"rope"}),
              .cases = {},
              .calls = {{.kernel = "rope", .bound = call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const bool interleaved : {true, false}) {
      spec.cases.push_back(
          rope_case(t, {7, 3, 29}, 5, 18, interleaved));  // odd sizes, columns on both sides
      spec.cases.push_back(rope_case(t, {9, 6}, 0, 2, interleaved));          // one pair, no heads
      spec.cases.push_back(rope_case(t, {5, 2, 192}, 128, 64, interleaved));  // DeepSeek V3's q
      spec.cases.push_back(rope_case(t, {5, 64}, 0, 64, interleaved));        // and k_pe
      spec.cases.push_back(rope_case(t, {4, 2, 40}, 0, 40, interleaved));
      spec.cases.push_back(rope_case(t, {8192, 12, 96}, 64, 32, interleaved, true));
    }
  return spec;
}

}  // namespace ferry::ops
