// What mla_expand promises, on every device.
#include "ops/mla_expand/mla_expand.h"
#include "ops/mla_expand/mla_expand_reference.h"

namespace ferry::ops {
namespace {

OpCase expand_case(DType dtype, int64_t tokens, int64_t heads, int64_t nope, int64_t rope, int64_t value) {
  OpCase c;
  c.name = fmt::format("{} [{}, {}] {}+{} {}", to_string(dtype), tokens, heads, nope, rope, value);
  c.inputs = {{.name = "kv", .shape = {tokens, heads, nope + value}, .dtype = dtype, .gradient = true, .rows = true},
              {.name = "k_pe", .shape = {tokens, rope}, .dtype = dtype, .gradient = true, .rows = true}};
  c.run = [=](const std::vector<Tensor>& in) -> std::vector<Tensor> {
    const Expanded e = mla_expand(in[0], in[1], nope);
    return {e.k, e.v};
  };
  c.reference = [=](const std::vector<RefTensor>& in) { return mla_expand_reference(in[0], in[1], nope); };
  c.tolerance = [](int, const std::vector<RefTensor>&, const RefTensor&) { return std::vector<double>{1e-300}; };
  c.gradient_tolerance = dtype == DType::kBF16 ? 0x1p-7 : 1e-5;
  c.bytes = 2.0 * static_cast<double>(tokens * heads * (nope + rope + value)) * static_cast<double>(size_of(dtype));
  return c;
}

}  // namespace

OpSpec mla_expand_spec() {
  OpSpec spec{.op = "mla_expand", .kernels = mla_expand_kernels(), .cases = {}};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    spec.cases.push_back(expand_case(t, 5, 3, 10, 6, 7));
    spec.cases.push_back(expand_case(t, 3, 4, 128, 64, 128));  // DeepSeek V3's head
    spec.cases.push_back(expand_case(t, 1, 1, 1, 17, 1));
  }
  return spec;
}

}  // namespace ferry::ops
