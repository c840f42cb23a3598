// grouped_matmul as problems for the shared blocked product, one for each expert.
#include "ops/cpu/gemm.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

void* at(const View& v, int64_t index) {
  return v.as<char>() + index * v.stride[0] * static_cast<int64_t>(size_of(v.dtype));
}

}  // namespace

Plan grouped_matmul_plan(const GroupedMatmulArgs& args) {
  return {.workspace_bytes = gemm_workspace_bytes(args.offsets.shape[0] - 1)};
}

void grouped_matmul(const Plan&, const GroupedMatmulArgs& args, void* workspace, Stream&) {
  const View &a = args.a, &b = args.b, &c = args.c;
  const int64_t experts = args.offsets.shape[0] - 1;
  const int32_t* offsets = args.offsets.as<int32_t>();
  Gemm* problems = static_cast<Gemm*>(workspace);
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t begin = offsets[e], rows = offsets[e + 1] - begin;
    Gemm& g = problems[e] = {.c_dtype = c.dtype, .bf16 = args.compute == DType::kBF16};
    if (args.product == GroupedProduct::kWeights) {
      g.a = {at(a, begin), a.dtype, 1, a.stride[0]};
      g.b = {at(b, begin), b.dtype, 1, b.stride[0]};
      g.c = at(c, e);
      g.c_stride = c.stride[1];
      g.m = a.shape[1], g.n = b.shape[1], g.k = rows;
    } else {
      const bool forward = args.product == GroupedProduct::kForward;
      g.a = {at(a, begin), a.dtype, a.stride[0], 1};
      g.b = {at(b, e), b.dtype, forward ? b.stride[1] : 1, forward ? 1 : b.stride[1]};
      g.c = at(c, begin);
      g.c_stride = c.stride[0];
      g.m = rows, g.n = c.shape[1], g.k = a.shape[1];
      if (args.panels.given()) g.panels = at(args.panels, e);
    }
  }
  gemm_batch(problems, experts, static_cast<char*>(workspace) + gemm_problems_bytes(experts));
}

}  // namespace ferry::ops::FERRY_TIER
