// What dequantize promises, on every device.
#include "ops/call_check.h"
#include "ops/dequantize/dequantize.h"
#include "ops/dequantize/dequantize_reference.h"
#include "ops/quantized_linear/quantized_weight.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

OpCase dequantize_case(const Shape& shape,
                       const ScaleBlocks& blocks,
                       DType out,
                       bool benchmark = false) {
  OpCase c;
  c.name = fmt::format(
      "{} in blocks of {} x {} to {}", shape.str(), blocks.rows, blocks.columns, to_string(out));
  // Every code in turn, those of NaN too.
  InputSpec codes{
      .name = "codes", .shape = shape, .dtype = DType::kI32, .fill = InputSpec::Fill::kGiven};
  codes.make_given = [count = static_cast<size_t>(shape.count())] {
    std::vector<double> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<double>(i * 7 % 256);
    return values;
  };
  c.inputs = {codes, {.name = "scales", .shape = blocks.scales_of(shape)}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const std::vector<int32_t> wide = in[0].to_i32();
    const std::vector<uint8_t> narrow(wide.begin(), wide.end());
    Tensor f8 = Tensor::empty(in[0].shape(), DType::kF8E4M3, in[0].device());
    f8.copy_bytes_from(narrow.data());
    return {dequantize(f8, in[1], blocks, out)};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {dequantize_reference(in[0], in[1], blocks.rows, blocks.columns)};
  };
  c.tolerance = elementwise_tolerance(out, out == DType::kBF16 ? 0x1p-24 : 0);
  c.row_independent = false;  // rows share scales
  c.flops = static_cast<double>(shape.count());
  c.bytes = static_cast<double>(shape.count()) * static_cast<double>(1 + size_of(out));
  c.benchmark = benchmark;
  return c;
}

/// What a weight of whole numbers stands for.
OpCase panels_case(WeightCodes kind, const Shape& shape, DType out) {
  OpCase c;
  c.name = fmt::format("{} {} to {}", to_string(kind), shape.str(), to_string(out));
  c.inputs = {codes_input(kind, shape), scales_input(kind, shape)};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {weight_values(quantized_weight(kind, shape, in[0], in[1]), out)};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {reference_numbers(kind, in[0], in[1])};
  };
  c.tolerance = codes_tolerance(kind, out);
  c.row_independent = false;
  c.needs = "dequantize_panels";
  return c;
}

}  // namespace

OpSpec dequantize_spec() {
  OpSpec spec{.op = "dequantize",
              .kernels = kernel_rows({"dequantize", "dequantize_panels"}),
              .cases = {},
              .calls = {{.kernel = "dequantize",
                         .bound =
                             [](CallFacts& facts, const char* output, const RefTensor& y) {
                               return rule_elementwise(facts, output, y, 0x1p-24);
                             }},
                        {.kernel = "dequantize_panels",
                         .bound =
                             [](CallFacts& facts, const char* output, const RefTensor& y) {
                               return rule_elementwise(facts, output, y, 0x1p-24);
                             },
                         .mixed_types = true}}};  // scales may be bf16, and stay so
  for (const DType out : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(dequantize_case({1, 1}, {128, 128}, out));
    spec.cases.push_back(dequantize_case({130, 259}, {128, 128}, out));  // cut on both sides
    spec.cases.push_back(dequantize_case({3, 70, 33}, {32, 16}, out));   // experts
    spec.cases.push_back(dequantize_case({2, 256, 128}, {128, 128}, out));
    spec.cases.push_back(dequantize_case({2048, 7168}, {128, 128}, out, true));  // V3's expert
    for (const WeightCodes kind : kWeightCodes) {
      const bool units = code_scales_dtype(kind) == DType::kU8;  // rows of whole units
      spec.cases.push_back(panels_case(kind, {33, units ? 512 : 70}, out));
      spec.cases.push_back(panels_case(kind, {3, 16, units ? 256 : 129}, out));
    }
  }
  return spec;
}

}  // namespace ferry::ops
