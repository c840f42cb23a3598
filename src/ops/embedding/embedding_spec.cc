// What embedding promises, on every device.
#include "ops/embedding/embedding.h"

#include "ops/call_check.h"
#include "ops/embedding/embedding_reference.h"
#include "ops/quantized_linear/quantized_weight.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct Sizes {
  int64_t tokens, vocab, hidden;
};

OpCase embedding_case(DType w_type, DType out, Sizes s, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} to {} tokens {} of [{}, {}]",
                       to_string(w_type),
                       to_string(out),
                       s.tokens,
                       s.vocab,
                       s.hidden);
  c.inputs = {{.name = "ids",
               .shape = {s.tokens},
               .dtype = DType::kI32,
               .fill = InputSpec::Fill::kIndex,
               .scale = static_cast<double>(s.vocab),
               .rows = true},
              {.name = "w",
               .shape = {s.vocab, s.hidden},
               .dtype = w_type,
               .gradient = w_type == DType::kF32}};
  c.run = [out](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Weight w{.name = "w", .global_shape = in[1].shape(), .shard = {}, .value = in[1]};
    return {embedding(in[0], w, out)};
  };
  c.reference = [](const auto& in) {
    return std::vector{embedding_reference(value_of(in[0]), in[1])};
  };
  // A copy is exact; a narrowing rounds once.
  const bool narrows = out == DType::kBF16 && w_type == DType::kF32;
  c.tolerance = narrows ? elementwise_tolerance(out, 0)
                        : [](int, const std::vector<RefTensor>&, const RefTensor&) {
                            return std::vector<double>{0.0};
                          };
  c.bytes = static_cast<double>(s.tokens * s.hidden) *
            static_cast<double>(size_of(w_type) + size_of(out));
  c.benchmark = benchmark;
  return c;
}

/// Rows of a table that is stored as whole numbers.
OpCase codes_case(WeightCodes kind, DType out, const Sizes& s) {
  const Shape shape{s.vocab, s.hidden};
  OpCase c = embedding_case(DType::kF32, out, s);
  c.name = fmt::format("{} to {} of {}", to_string(kind), to_string(out), shape.str());
  c.inputs[1] = codes_input(kind, shape);
  c.inputs.push_back(scales_input(kind, shape));
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {embedding(in[0], quantized_weight(kind, shape, in[1], in[2]), out)};
  };
  c.reference = [=](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {embedding_reference(in[0], reference_numbers(kind, in[1], in[2]))};
  };
  c.tolerance = codes_tolerance(kind, out);
  c.needs = "dequantize_panels";  // devices without it keep no codes
  return c;
}

OpCase outside_case() {
  OpCase c = embedding_case(DType::kF32, DType::kF32, {5, 3, 17});
  c.name = "ids outside the vocabulary";
  c.inputs[0].fill = InputSpec::Fill::kGiven;
  c.inputs[0].given = {2, -1, 3, 2147483647, 0};
  return c;
}

std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const bool widened = facts.type("weight") == DType::kBF16 || facts.type("y") == DType::kF32;
  return !widened ? rule_elementwise(facts, output, y, 0) : rule_exact(facts, output, y);
}

/// Each row sums the gradients of its tokens, in any order.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const RefTensor size = facts.magnitudes({"d_y"}, output);
  const RefTensor& ids = facts.input("ids");
  const int64_t hidden = y.shape[1];
  std::vector<double> bound = rule_elementwise(facts, output, y, 0), uses(bound.size());
  for (const double id : ids.values)
    if (id >= 0 && id < static_cast<double>(y.shape[0])) uses[static_cast<size_t>(id)] += 1;
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 2 * uses[static_cast<size_t>(i / hidden)] * 0x1p-24 * size[i];
  return bound;
}

}  // namespace

OpSpec embedding_spec() {
  OpSpec spec{.op = "embedding",
              .kernels = kernel_rows({"embedding", "embedding_backward"}),
              .cases = {},
              .calls = {{.kernel = "embedding", .bound = call_bound, .mixed_types = true},
                        {.kernel = "embedding_backward", .bound = backward_call_bound}}};
  for (const DType w : {DType::kF32, DType::kBF16})
    for (const DType out : {DType::kF32, DType::kBF16}) {
      spec.cases.push_back(embedding_case(w, out, {7, 5, 129}));  // ids repeat
      spec.cases.push_back(embedding_case(w, out, {1, 1, 1}));
      spec.cases.push_back(embedding_case(w, out, {33, 300, 64}));  // rows that no token uses
      spec.cases.push_back(embedding_case(w, out, {8192, 8192, 768}, true));
    }
  for (const WeightCodes kind : kWeightCodes)
    for (const DType out : {DType::kF32, DType::kBF16})
      spec.cases.push_back(
          codes_case(kind, out, {9, 37, code_scales_dtype(kind) == DType::kU8 ? 512 : 70}));
  spec.cases.push_back(embedding_case(DType::kF32, DType::kF32, {0, 4, 8}));
  spec.cases.push_back(outside_case());
  OpCase zeros = embedding_case(DType::kF32, DType::kBF16, {7, 5, 17});
  zeros.name = "id 0 between others";
  zeros.inputs[0].fill = InputSpec::Fill::kGiven;
  zeros.inputs[0].given = {2, 0, 3, 0, 0, 4, 1};
  spec.cases.push_back(zeros);
  spec.cases.push_back(special_case(embedding_case(DType::kF32, DType::kBF16, {7, 5, 17})));
  return spec;
}

}  // namespace ferry::ops
