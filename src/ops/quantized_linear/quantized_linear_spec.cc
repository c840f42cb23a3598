// What quantized_linear promises, on every device, through the ops that come to it.
#include <algorithm>
#include <cmath>

#include "ops/call_check.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/linear/linear.h"
#include "ops/quantized_linear/quantized_linear.h"
#include "ops/quantized_linear/quantized_linear_reference.h"
#include "ops/quantized_linear/quantized_weight.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct QuantizedShape {
  std::vector<int64_t> rows;  // of each expert; one: linear
  int64_t inputs, outputs;
};

OpCase quantized_case(
    WeightCodes kind, DType x, DType out, const QuantizedShape& s, bool benchmark = false) {
  const bool stack = s.rows.size() > 1;
  const auto matrices = static_cast<int64_t>(s.rows.size());
  std::vector<double> offsets{0};
  for (const int64_t rows : s.rows) offsets.push_back(offsets.back() + static_cast<double>(rows));
  const auto rows = static_cast<int64_t>(offsets.back());
  const CodePanels layout{kind, s.outputs, s.inputs};
  const Shape shape{matrices, s.outputs, s.inputs};
  OpCase c;
  c.name = fmt::format("{} x {} -> {} [{}, {}] -> {}{}",
                       to_string(x),
                       to_string(kind),
                       to_string(out),
                       rows,
                       s.inputs,
                       s.outputs,
                       stack ? fmt::format(", {} experts", matrices) : "");
  const auto given = [](const char* name, const Shape& of, std::vector<double> values) {
    return InputSpec{.name = name,
                     .shape = of,
                     .dtype = DType::kI32,
                     .fill = InputSpec::Fill::kGiven,
                     .given = std::move(values)};
  };
  c.inputs = {{.name = "x", .shape = {rows, s.inputs}, .dtype = x, .rows = !stack},
              codes_input(kind, shape),
              scales_input(kind, shape),
              given("offsets", {matrices + 1}, offsets)};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight w =
        quantized_weight(kind, stack ? shape : Shape{s.outputs, s.inputs}, in[1], in[2]);
    return {stack ? grouped_linear(in[0], w, in[3]) : linear(in[0], w, {.out = out})};
  };
  const auto reference = [=](const std::vector<RefTensor>& in) {
    RefTensor all = in[3];
    if (!stack) all[1] = static_cast<double>(in[0].shape[0]);  // rows may have been cut
    return quantized_linear_reference(in[0], in[1], in[2], all, kind);
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {reference(in).y};
  };
  // A rounding of the sum for each part, of products and of least values; int8: one more for the row's
  // scale; the others: one of each part.
  const int64_t parts = std::max(layout.column_groups(), layout.groups());
  const double roundings = static_cast<double>((has_least(kind) ? 2 : 1) * parts) + 1;
  c.tolerance = [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
    const RefTensor magnitudes = reference(in).magnitudes;
    std::vector<double> bound(y.values.size());
    for (size_t i = 0; i < bound.size(); ++i)
      bound[i] =
          (1 + 1e-2) * (roundings * 0x1p-24 * magnitudes.values[i] +
                        (out == DType::kBF16 ? unit_roundoff(out) : 0) * std::abs(y.values[i])) +
          kLeastNormal;
    return bound;
  };
  c.row_independent = !stack;
  c.flops = 2.0 * static_cast<double>(rows * s.inputs * s.outputs);
  c.bytes = static_cast<double>(matrices *
                                (layout.bytes() + layout.panels() * layout.panel_scale_bytes())) +
            static_cast<double>(rows * s.inputs) * static_cast<double>(size_of(x)) +
            static_cast<double>(rows * s.outputs) * static_cast<double>(size_of(out));
  c.benchmark = benchmark;
  c.needs = "quantized_linear";
  return c;
}

}  // namespace

OpSpec quantized_linear_spec() {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  OpSpec spec{.op = "quantized_linear",
              .kernels = kernel_rows({"quantized_linear"}),
              .cases = {},
              .calls = {{.kernel = "quantized_linear",
                         // The same codes meet; only the last roundings may be others.
                         .bound =
                             [](CallFacts& facts, const char* output, const RefTensor& y) {
                               return rule_elementwise(facts, output, y, 0x1p-22);
                             },
                         .mixed_types = true}}};
  for (const WeightCodes kind : kWeightCodes) {
    if (code_scales_dtype(kind) == DType::kU8) {  // of GGUF files: rows of whole units
      for (const DType x : {kF32, kBF16}) {
        spec.cases.push_back(quantized_case(kind, x, x, {{1}, 256, 1}));
        spec.cases.push_back(quantized_case(kind, x, kF32, {{7}, 512, 33}));
        spec.cases.push_back(quantized_case(kind, x, x, {{25}, 256, 70}));
        spec.cases.push_back(quantized_case(kind, x, x, {{0, 3, 17, 0}, 256, 33}));
      }
      spec.cases.push_back(quantized_case(kind, kBF16, kBF16, {{1}, 1536, 8960}, true));
      spec.cases.push_back(quantized_case(kind, kBF16, kBF16, {{512}, 1536, 8960}, true));
      continue;
    }
    for (const DType x : {kF32, kBF16}) {
      spec.cases.push_back(quantized_case(kind, x, x, {{1}, 1, 1}));
      spec.cases.push_back(quantized_case(kind, x, x, {{7}, 129, 33}));
      spec.cases.push_back(quantized_case(kind, x, kF32, {{1}, 320, 96}));
      spec.cases.push_back(quantized_case(kind, x, x, {{13}, 70, 17}));
      spec.cases.push_back(quantized_case(kind, x, x, {{61}, 96, 160}));
      spec.cases.push_back(quantized_case(kind, x, x, {{0, 3, 0, 17, 1, 0}, 129, 33}));
      spec.cases.push_back(quantized_case(kind, x, x, {{0, 0}, 16, 16}));
      spec.cases.push_back(quantized_case(kind, x, x, {{1}, 1536, 8960}, true));
      spec.cases.push_back(quantized_case(kind, x, x, {{8}, 1536, 8960}, true));
      spec.cases.push_back(quantized_case(kind, x, x, {{512}, 1536, 8960}, true));
    }
    const OpCase ordinary = quantized_case(kind, kF32, kF32, {{5}, 64, 20});
    OpCase special = special_case(ordinary);
    special.inputs[2] = ordinary.inputs[2];  // whoever loads a weight has looked at its scales
    spec.cases.push_back(special);
    OpCase tiny = quantized_case(kind, kF32, kF32, {{4}, 40, 16});
    tiny.name += " below the least scale";
    tiny.inputs[0].scale = 0x1p-120;
    spec.cases.push_back(tiny);
  }
  return spec;
}

}  // namespace ferry::ops
