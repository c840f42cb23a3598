// What linear promises, on every device. Its kernel is matmul's.
#include "ops/linear/linear.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct LinearShape {
  int64_t tokens, inputs, outputs;
};

OpCase linear_case(
    DType x, DType w, DType out, const LinearShape& s, bool gradient, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} x {} -> {} [{}, {}] -> {}",
                       to_string(x),
                       to_string(w),
                       to_string(out),
                       s.tokens,
                       s.inputs,
                       s.outputs);
  c.inputs = {
      {.name = "x", .shape = {s.tokens, s.inputs}, .dtype = x, .gradient = gradient, .rows = true},
      {.name = "w", .shape = {s.outputs, s.inputs}, .dtype = w}};
  // Where a trained f32 weight is rounded to bf16, one that bf16 holds exactly keeps the bound
  // tight.
  const bool rounded = x == DType::kBF16 && w == DType::kF32;
  if (rounded && gradient) c.inputs[1] = bf16_exact_input("w", {s.outputs, s.inputs}, w, 3);
  c.inputs[1].gradient = gradient;
  c.run = [out](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight weight{.name = "w", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {linear(in[0], weight, {.out = out})};
  };
  c.reference = [=](const auto& in) {
    if (rounded && !gradient)
      for (const auto& value : in[1].values) stored(value);
    auto y = matmul_reference(in[0], in[1], false, true);
    // A product in bf16 takes an f32 gradient rounded to bf16.
    if (out == DType::kF32)
      for (const auto& value : y.values) gradient_stored(value);
    return std::vector{y};
  };
  const auto tolerance = [=](int64_t roundings) {
    return [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
      return matmul_tolerance(y,
                              matmul_reference(absolute(in[0]), absolute(in[1]), false, true),
                              roundings,
                              out,
                              x,
                              rounded && !gradient ? 1 : 0);
    };
  };
  c.tolerance = tolerance(s.inputs);
  if (x == DType::kBF16) c.tensor_tolerance = tolerance(tensor_roundings(s.inputs));
  c.flops = 2.0 * static_cast<double>(s.tokens * s.inputs * s.outputs);
  c.bytes = static_cast<double>(s.tokens * s.inputs) * static_cast<double>(size_of(x)) +
            static_cast<double>(s.outputs * s.inputs) * static_cast<double>(size_of(w)) +
            static_cast<double>(s.tokens * s.outputs) * static_cast<double>(size_of(out));
  c.benchmark = benchmark;
  return c;
}

}  // namespace

OpSpec linear_spec() {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  OpSpec spec{.op = "linear", .kernels = {}, .cases = {}};
  for (const DType x : {kF32, kBF16}) {
    spec.cases.push_back(linear_case(x, kF32, x, {1, 1, 1}, true));
    spec.cases.push_back(linear_case(x, kF32, x, {7, 129, 33}, true));
    spec.cases.push_back(linear_case(x, kF32, x, {1, 320, 96}, true));
    spec.cases.push_back(linear_case(x, kF32, x, {61, 96, 160}, true));
    spec.cases.push_back(linear_case(x, kF32, kF32, {33, 64, 8}, true));  // the router
    spec.cases.push_back(linear_case(x, kF32, kF32, {17, 70, 130}, false));
    spec.cases.push_back(
        linear_case(x, kBF16, x, {5, 7168, 64}, false));  // DeepSeek V3's hidden size
    spec.cases.push_back(linear_case(x, x, x, {40, 1536, 192}, false));  // its q_lora_rank
    spec.cases.push_back(linear_case(x, kF32, x, {4096, 768, 3072}, true, true));
    spec.cases.push_back(linear_case(x, kBF16, x, {1, 768, 3072}, false, true));
  }
  return spec;
}

}  // namespace ferry::ops
