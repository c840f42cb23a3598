// What embedding promises, on every device.
#include "ops/embedding/embedding.h"

#include "ops/call_check.h"
#include "ops/embedding/embedding_reference.h"
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
  c.reference = [](const std::vector<RefTensor>& in) -> std::vector<RefTensor> {
    return {embedding_reference(in[0], in[1])};
  };
  // A copy is exact; a narrowing rounds once.
  const bool narrows = out == DType::kBF16 && w_type == DType::kF32;
  c.tolerance = narrows ? elementwise_tolerance(out, 0)
                        : [](int, const std::vector<RefTensor>&, const RefTensor&) {
                            return std::vector<double>{0.0};
                          };
  c.gradient_tolerance = 1e-5;
  c.bytes = static_cast<double>(s.tokens * s.hidden) *
            static_cast<double>(size_of(w_type) + size_of(out));
  c.benchmark = benchmark;
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
  return facts.type("weight") == DType::kF32 && facts.type("y") == DType::kBF16
             ? rule_elementwise(facts, output, y, 0)
             : rule_exact(facts, output, y);
}

}  // namespace

OpSpec embedding_spec() {
  OpSpec spec{.op = "embedding",
              .kernels = kernel_rows({"embedding", "embedding_backward"}),
              .cases = {},
              .calls = {{.kernel = "embedding", .bound = call_bound}}};
  for (const DType w : {DType::kF32, DType::kBF16})
    for (const DType out : {DType::kF32, DType::kBF16}) {
      spec.cases.push_back(embedding_case(w, out, {7, 5, 129}));  // ids repeat
      spec.cases.push_back(embedding_case(w, out, {1, 1, 1}));
      spec.cases.push_back(embedding_case(w, out, {33, 300, 64}));  // rows that no token uses
      spec.cases.push_back(embedding_case(w, out, {8192, 8192, 768}, true));
    }
  spec.cases.push_back(embedding_case(DType::kF32, DType::kF32, {0, 4, 8}));
  spec.cases.push_back(outside_case());
  return spec;
}

}  // namespace ferry::ops
