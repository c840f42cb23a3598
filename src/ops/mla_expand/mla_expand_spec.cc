// What mla_expand promises, on every device.
#include <string_view>

#include "ops/call_check.h"
#include "ops/mla_expand/mla_expand.h"
#include "ops/mla_expand/mla_expand_reference.h"
#include "ops/spec.h"

namespace ferry::ops {
namespace {

struct Sizes {
  int64_t tokens, heads, nope, rotary, d_v;
  bool benchmark = false;
};

OpCase expand_case(DType dtype, const Sizes& z) {
  OpCase c;
  c.name = fmt::format("{} {} tokens {} heads {}+{}/{}",
                       to_string(dtype),
                       z.tokens,
                       z.heads,
                       z.nope,
                       z.rotary,
                       z.d_v);
  // k_pe lies behind the latent in the projection's output: a strided view.
  c.inputs = {{.name = "kv",
               .shape = {z.tokens, z.heads, z.nope + z.d_v},
               .dtype = dtype,
               .gradient = true,
               .rows = true},
              {.name = "latent",
               .shape = {z.tokens, 3 + z.rotary},
               .dtype = dtype,
               .gradient = true,
               .rows = true}};
  c.run = [z](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Expanded y = mla_expand(in[0], in[1].slice(1, 3, 3 + z.rotary), z.nope);
    return {y.k, y.v};
  };
  c.reference = [z]<class T>(const std::vector<RefArray<T>>& in) {
    RefArray<T> k_pe({z.tokens, z.rotary});
    for (int64_t i = 0; i < k_pe.shape.count(); ++i)
      k_pe[i] = in[1][i / z.rotary * (3 + z.rotary) + 3 + i % z.rotary];
    return mla_expand_reference(in[0], k_pe, z.nope);
  };
  c.tolerance = [](int, const std::vector<RefTensor>&, const RefTensor&) {
    return std::vector<double>{0.0};
  };  // copies
  c.bytes = 2.0 * static_cast<double>(z.tokens * z.heads * (z.nope + z.rotary + z.d_v)) *
            static_cast<double>(size_of(dtype));
  c.benchmark = z.benchmark;
  return c;
}

/// d_kv is copies; d_k_pe sums over heads.
std::vector<double> backward_call_bound(CallFacts& facts, const char* output, const RefTensor& y) {
  if (std::string_view(output) == "d_kv") return {0.0};
  const RefTensor size = facts.magnitudes({"d_k", "d_v"}, output);
  const auto heads = static_cast<double>(facts.shape("d_k")[1]);
  std::vector<double> bound = rule_elementwise(facts, output, y, 0);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    bound[static_cast<size_t>(i)] += 2 * heads * 0x1p-24 * size[i];
  return bound;
}

}  // namespace

OpSpec mla_expand_spec() {
  OpSpec spec{.op = "mla_expand",
              .kernels = kernel_rows({"mla_expand", "mla_expand_backward"}),
              .cases = {},
              .calls = {{.kernel = "mla_expand", .bound = rule_exact},
                        {.kernel = "mla_expand_backward", .bound = backward_call_bound}}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(expand_case(t, {1, 1, 1, 1, 1}));
    spec.cases.push_back(special_case(expand_case(t, {3, 2, 4, 5, 3})));
    spec.cases.push_back(expand_case(t, {37, 3, 7, 18, 5}));
    spec.cases.push_back(expand_case(t, {5, 4, 0, 16, 8}));      // no part without position
    spec.cases.push_back(expand_case(t, {3, 4, 128, 64, 128}));  // DeepSeek V3's
    spec.cases.push_back(expand_case(t, {8192, 12, 64, 32, 64, true}));
  }
  return spec;
}

}  // namespace ferry::ops
