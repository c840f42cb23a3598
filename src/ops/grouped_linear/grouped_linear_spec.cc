// What grouped_linear promises, on every device.
#include "ops/grouped_linear/grouped_linear.h"

#include <numeric>

#include "ops/call_check.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"
#include "ops/grouped_linear/grouped_linear_reference.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase grouped_case(DType x,
                    DType w,
                    const std::vector<int64_t>& rows_of,
                    int64_t inputs,
                    int64_t outputs,
                    bool benchmark = false) {
  const auto experts = static_cast<int64_t>(rows_of.size());
  std::vector<double> offsets{0};
  for (const int64_t rows : rows_of) offsets.push_back(offsets.back() + static_cast<double>(rows));
  const auto rows = static_cast<int64_t>(offsets.back());
  OpCase c;
  c.name = fmt::format("{} x {} [{}, {}] -> {}, {} experts",
                       to_string(x),
                       to_string(w),
                       rows,
                       inputs,
                       outputs,
                       experts);
  c.inputs = {{.name = "x", .shape = {rows, inputs}, .dtype = x, .gradient = true},
              bf16_exact_input("w", {experts, outputs, inputs}, w, 5),
              {.name = "offsets",
               .shape = {experts + 1},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .given = offsets}};
  c.inputs[1].gradient = w == DType::kF32;  // trained weights are f32
  c.run = [](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight weight{.name = "w", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {grouped_linear(in[0], weight, in[2])};
  };
  c.reference = [](const auto& in) {
    return std::vector{grouped_linear_reference(in[0], in[1], value_of(in[2]))};
  };
  const auto tolerance = [=](int64_t roundings) {
    return [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
      return matmul_tolerance(
          y, grouped_linear_reference(absolute(in[0]), absolute(in[1]), in[2]), roundings, x);
    };
  };
  c.tolerance = tolerance(inputs);
  if (x == DType::kBF16) c.tensor_tolerance = tolerance(tensor_roundings(inputs));
  c.row_independent =
      false;  // rows cannot be cut without changing the offsets: grouped_linear_test
  c.flops = 2.0 * static_cast<double>(rows * inputs * outputs);
  c.bytes = static_cast<double>(rows * (inputs + outputs)) * static_cast<double>(size_of(x)) +
            static_cast<double>(experts * outputs * inputs) * static_cast<double>(size_of(w));
  c.benchmark = benchmark;
  return c;
}

/// Device and reference round the operands alike, and then sum in orders of their own.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const auto product = static_cast<GroupedProduct>(static_cast<int>(facts.number("product")));
  const int64_t k = facts.shape("a")[product == GroupedProduct::kWeights ? 0 : 1];
  return matmul_tolerance(
      y, facts.magnitudes({"a", "b"}, output), facts.roundings(k), facts.type(output));
}

}  // namespace

OpSpec grouped_linear_spec() {
  OpSpec spec{.op = "grouped_linear",
              .kernels = kernel_rows({"grouped_matmul"}),
              .cases = {},
              .calls = {{.kernel = "grouped_matmul",
                         .bound = call_bound,
                         .mixed_types = true,
                         .on_tensor_cores = [](const CallFacts& facts) {
                           return facts.number("bf16") != 0;
                         }}}};
  const std::vector<int64_t> even(32, 1024);
  for (const DType x : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(grouped_case(x, DType::kF32, {1}, 7, 5));
    spec.cases.push_back(grouped_case(x, DType::kF32, {0, 3, 0, 17, 1, 0}, 129, 33));
    spec.cases.push_back(grouped_case(x, DType::kF32, {0, 0, 65}, 64, 70));  // one expert takes all
    spec.cases.push_back(grouped_case(x, DType::kBF16, {5, 0, 2, 9}, 96, 40));
    spec.cases.push_back(
        grouped_case(x, DType::kF32, {0, 0}, 16, 16));  // nobody routed anything here
    spec.cases.push_back(grouped_case(x, DType::kF32, even, 768, 384, true));
  }
  return spec;
}

}  // namespace ferry::ops
