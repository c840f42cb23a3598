// What matmul promises, on every device.
#include "ops/call_check.h"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct MatmulShape {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
};

OpCase matmul_case(DType a, DType b, DType out, const MatmulShape& s, bool benchmark = false) {
  OpCase c;
  c.name = fmt::format("{} x {} -> {} [{}, {}]{} [{}, {}]{}",
                       to_string(a),
                       to_string(b),
                       to_string(out),
                       s.m,
                       s.k,
                       s.transpose_a ? "^T" : "",
                       s.k,
                       s.n,
                       s.transpose_b ? "^T" : "");
  c.inputs = {
      {.name = "a",
       .shape = s.transpose_a ? Shape{s.k, s.m} : Shape{s.m, s.k},
       .dtype = a,
       .rows = !s.transpose_a},
      {.name = "b", .shape = s.transpose_b ? Shape{s.n, s.k} : Shape{s.k, s.n}, .dtype = b}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    return {matmul(
        in[0], in[1], {.transpose_a = s.transpose_a, .transpose_b = s.transpose_b, .out = out})};
  };
  const int rounded = a == DType::kBF16 && b == DType::kF32 ? 1 : 0;  // b, to bf16
  c.reference = [=](const auto& in) {
    if (rounded > 0)
      for (const auto& x : in[1].values) stored(x);
    return std::vector{matmul_reference(in[0], in[1], s.transpose_a, s.transpose_b)};
  };
  const auto tolerance = [=](int64_t roundings) {
    return [=](int, const std::vector<RefTensor>& in, const RefTensor& y) {
      return matmul_tolerance(
          y,
          matmul_reference(absolute(in[0]), absolute(in[1]), s.transpose_a, s.transpose_b),
          roundings,
          out,
          a,
          rounded);
    };
  };
  c.tolerance = tolerance(s.k);
  if (a == DType::kBF16) c.tensor_tolerance = tolerance(tensor_roundings(s.k));
  c.row_independent = !s.transpose_a;
  c.flops = 2.0 * static_cast<double>(s.m * s.n * s.k);
  c.bytes = static_cast<double>(s.m * s.k) * static_cast<double>(size_of(a)) +
            static_cast<double>(s.n * s.k) * static_cast<double>(size_of(b)) +
            static_cast<double>(s.m * s.n) * static_cast<double>(size_of(out));
  c.benchmark = benchmark;
  return c;
}

/// Device and reference round the operands alike, and then sum in orders of their own.
std::vector<double> call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  const Shape a = facts.shape("a");
  const int64_t k = a[facts.number("transpose_a") != 0 ? a.rank() - 2 : a.rank() - 1];
  return matmul_tolerance(
      y, facts.magnitudes({"a", "b"}, output), facts.roundings(k), facts.type(output));
}

}  // namespace

OpSpec matmul_spec() {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  OpSpec spec{.op = "matmul",
              .kernels = kernel_rows({"matmul", "pack_panels"}),
              .cases = {},
              .calls = {{.kernel = "matmul",
                         .bound = call_bound,
                         .mixed_types = true,
                         .on_tensor_cores =
                             [](const CallFacts& facts) { return facts.number("bf16") != 0; }},
                        {.kernel = "pack_panels", .bound = rule_exact, .mixed_types = true}}};
  for (const DType a : {kF32, kBF16})
    for (const DType b : {kF32, kBF16})
      for (const int transposed : {0, 1, 2, 3})
        spec.cases.push_back(matmul_case(a,
                                         b,
                                         transposed % 2 == 0 ? a : kF32,
                                         {.m = 35,
                                          .n = 67,
                                          .k = 129,
                                          .transpose_a = transposed > 1,
                                          .transpose_b = transposed % 2 > 0}));
  // Sizes in which rows are aligned to 16 bytes, whichever way they lie.
  for (const int transposed : {0, 1, 2, 3})
    spec.cases.push_back(matmul_case(kBF16,
                                     kBF16,
                                     transposed % 2 == 0 ? kBF16 : kF32,
                                     {.m = 40,
                                      .n = 72,
                                      .k = 104,
                                      .transpose_a = transposed > 1,
                                      .transpose_b = transposed % 2 > 0}));
  for (const DType t : {kF32, kBF16}) {
    OpCase large = matmul_case(t, t, t, {.m = 17, .n = 33, .k = 129, .transpose_b = true});
    large.name += " sums beyond 65504";
    for (InputSpec& in : large.inputs) in.scale = 300;
    spec.cases.push_back(large);
    spec.cases.push_back(matmul_case(t, t, t, {.m = 1, .n = 1, .k = 1}));
    spec.cases.push_back(matmul_case(
        t, t, t, {.m = 130, .n = 300, .k = 1030, .transpose_b = true}));  // several blocks of k
    spec.cases.push_back(
        matmul_case(t, t, t, {.m = 768, .n = 3072, .k = 768, .transpose_b = true}, true));
    spec.cases.push_back(matmul_case(t, t, t, {.m = 2048, .n = 2048, .k = 2048}, true));
  }
  return spec;
}

}  // namespace ferry::ops
