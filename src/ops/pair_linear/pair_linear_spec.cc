// What pair_linear promises, on every device, through the ops that come to it.
#include "ops/call_check.h"
#include "ops/dequantize/dequantize.h"
#include "ops/embedding/embedding.h"
#include "ops/embedding/embedding_reference.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/grouped_linear/grouped_linear_reference.h"
#include "ops/linear/linear.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/pair_linear/paired_weight.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct PairShape {
  std::vector<int64_t> rows;  // of each expert; one: linear
  int64_t inputs, outputs;
};

OpCase product_case(DType out, const PairShape& s, bool benchmark = false) {
  const bool stack = s.rows.size() > 1;
  const auto matrices = static_cast<int64_t>(s.rows.size());
  std::vector<double> offsets{0};
  for (const int64_t rows : s.rows) offsets.push_back(offsets.back() + static_cast<double>(rows));
  const auto rows = static_cast<int64_t>(offsets.back());
  OpCase c;
  c.name = fmt::format("bf16 [{}, {}] -> {} {}{}",
                       rows,
                       s.inputs,
                       to_string(out),
                       s.outputs,
                       stack ? fmt::format(", {} experts", matrices) : "");
  c.inputs = {{.name = "x", .shape = {rows, s.inputs}, .dtype = DType::kBF16, .rows = !stack},
              {.name = "w",
               .shape = stack ? Shape{matrices, s.outputs, s.inputs} : Shape{s.outputs, s.inputs},
               .dtype = DType::kBF16},
              {.name = "offsets",
               .shape = {matrices + 1},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kGiven,
               .given = offsets}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight w = paired_weight("w", in[1]);
    return {stack ? grouped_linear(in[0], w, in[2]) : linear(in[0], w, {.out = out})};
  };
  const auto reference = [stack](const RefTensor& x, const RefTensor& w, const RefTensor& of) {
    return stack ? grouped_linear_reference(x, w, of) : matmul_reference(x, w, false, true);
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {reference(in[0], in[1], in[2])};
  };
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    return matmul_tolerance(
        y, reference(absolute(in[0]), absolute(in[1]), in[2]), s.inputs, out, DType::kBF16);
  };
  c.row_independent = !stack;
  c.flops = 2.0 * static_cast<double>(rows * s.inputs * s.outputs);
  c.bytes = 2.0 * static_cast<double>(rows * s.inputs + matrices * s.outputs * s.inputs) +
            static_cast<double>(rows * s.outputs) * static_cast<double>(size_of(out));
  c.benchmark = benchmark;
  c.needs = "pair_linear";
  return c;
}

/// What a weight stands for, whole or rows of it.
OpCase rows_case(DType out, const Shape& shape, const std::vector<double>& ids) {
  OpCase c;
  c.name = fmt::format("{} of {} to {}", ids.empty() ? "all" : "rows", shape.str(), to_string(out));
  c.inputs = {{.name = "w", .shape = shape, .dtype = DType::kBF16}};
  if (!ids.empty())
    c.inputs.push_back({.name = "ids",
                        .shape = {static_cast<int64_t>(ids.size())},
                        .dtype = DType::kI32,
                        .fill = InputSpec::Fill::kGiven,
                        .given = ids});
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight w = paired_weight("w", in[0]);
    return {ids.empty() ? weight_values(w, out) : embedding(in[1], w, out)};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {ids.empty() ? in[0] : embedding_reference(in[1], in[0])};
  };
  c.tolerance = [](int, const std::vector<RefTensor>&, const RefTensor&) {
    return std::vector<double>{0.0};
  };
  c.row_independent = false;
  c.needs = "pair_rows";
  return c;
}

}  // namespace

OpSpec pair_linear_spec() {
  OpSpec spec{
      .op = "pair_linear",
      .kernels = kernel_rows({"pair_linear", "pair_rows"}),
      .cases = {},
      .calls = {{.kernel = "pair_linear",
                 // The CPU's alone, in one order on all of them; only results' types differ.
                 .bound =
                     [](CallFacts& facts, const char* output, const RefTensor& y) {
                       return rule_elementwise(facts, output, y, 0x1p-22);
                     },
                 .mixed_types = true},
                {.kernel = "pair_rows", .bound = rule_exact, .mixed_types = true}}};
  for (const DType out : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(product_case(out, {{1}, 1, 1}));
    spec.cases.push_back(product_case(out, {{7}, 129, 33}));
    spec.cases.push_back(product_case(out, {{1}, 320, 96}));
    spec.cases.push_back(product_case(out, {{13}, 70, 17}));
    spec.cases.push_back(product_case(out, {{61}, 96, 160}));
    spec.cases.push_back(product_case(out, {{3}, 4100, 40}));  // several blocks of k
    spec.cases.push_back(product_case(out, {{40}, 4100, 40}));
    spec.cases.push_back(rows_case(out, {5, 7}, {}));
    spec.cases.push_back(rows_case(out, {70, 130}, {}));
    spec.cases.push_back(rows_case(out, {3, 33, 65}, {}));  // experts
    spec.cases.push_back(rows_case(out, {45, 66}, {44, 0, 31, 32, 0, -1, 45}));
  }
  spec.cases.push_back(product_case(DType::kBF16, {{0, 3, 0, 17, 1, 0}, 129, 33}));
  spec.cases.push_back(product_case(DType::kBF16, {{0, 0, 65}, 64, 70}));
  spec.cases.push_back(product_case(DType::kBF16, {{0, 0}, 16, 16}));
  spec.cases.push_back(special_case(product_case(DType::kF32, {{5}, 64, 20})));
  spec.cases.push_back(product_case(DType::kBF16, {{1}, 1536, 8960}, true));
  spec.cases.push_back(product_case(DType::kBF16, {{8}, 1536, 8960}, true));
  spec.cases.push_back(product_case(DType::kBF16, {{512}, 1536, 8960}, true));
  return spec;
}

}  // namespace ferry::ops
