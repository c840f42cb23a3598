// What rope promises, on every device.
#include <algorithm>
#include <cmath>

#include "ops/rope/rope_reference.h"

namespace ferry::ops {
namespace {

OpCase rope_case(DType dtype, const Shape& shape, int64_t begin, const RopeConfig& config, bool interleaved, int64_t positions) {
  OpCase c;
  c.name = fmt::format("{} {} columns [{}, {}) {}{}", to_string(dtype), shape.str(), begin, begin + config.dim,
                       interleaved ? "interleaved" : "half-split", config.yarn ? " yarn" : "");
  c.inputs = {{.name = "x", .shape = shape, .dtype = dtype, .gradient = true, .rows = true},
              {.name = "position", .shape = {shape[0]}, .dtype = DType::kI32, .fill = InputSpec::Fill::kIndex,
               .scale = static_cast<double>(positions), .rows = true}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {rope(in[0], make_rope_table(config, positions, in[0].device()), in[1], begin, interleaved)};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {rope_reference(in[0], in[1], config, begin, interleaved)};
  };
  // Table entries within 1 ulp, two products, one sum: 4 roundings of terms as large as the pair.
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    double largest = 0;
    for (const double v : in[0].values) largest = std::max(largest, std::abs(v));
    std::vector<double> bound;
    for (const double v : y.values) bound.push_back(unit_roundoff(dtype) * std::abs(v) + 8 * 0x1p-24 * largest * 2);
    return bound;
  };
  c.gradient_tolerance = dtype == DType::kBF16 ? 0x1p-7 : 1e-5;
  c.flops = 3.0 * static_cast<double>(shape.count());
  c.bytes = 2.0 * static_cast<double>(shape.count()) * static_cast<double>(size_of(dtype));
  return c;
}

}  // namespace

OpSpec rope_spec() {
  OpSpec spec{.op = "rope", .kernels = rope_kernels(), .cases = {}};
  const RopeConfig v3{.dim = 64, .theta = 10000, .yarn = true, .factor = 40, .original_max_position = 4096,
                      .mscale = 1, .mscale_all_dim = 1};
  const RopeConfig scaled{.dim = 8, .theta = 500, .yarn = true, .factor = 4, .original_max_position = 32,
                          .beta_fast = 2, .beta_slow = 0.25, .mscale = 0.9, .mscale_all_dim = 0.3};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(rope_case(t, {5, 3, 192}, 128, v3, true, 8192));       // DeepSeek V3's queries
    spec.cases.push_back(rope_case(t, {7, 64}, 0, v3, true, 8192));             // its shared key
    spec.cases.push_back(rope_case(t, {9, 2, 13}, 3, scaled, true, 100));
    spec.cases.push_back(rope_case(t, {9, 2, 13}, 0, scaled, false, 100));
    spec.cases.push_back(rope_case(t, {1, 1, 2}, 0, {.dim = 2}, false, 4));
  }
  return spec;
}

}  // namespace ferry::ops
