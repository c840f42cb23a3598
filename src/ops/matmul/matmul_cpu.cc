// matmul as problems for the shared blocked product, one for each batch.
#include "ops/cpu/gemm.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

/// Batch i of a view whose rows (of the product) lie along its second-last dimension, or its last.
GemmOperand operand(const View& v, int64_t batch, bool rows_last) {
  const int rows = v.rank - 2;
  const int64_t offset = v.rank == 3 ? batch * v.stride[0] : 0;
  const char* data = v.as<const char>() + offset * static_cast<int64_t>(size_of(v.dtype));
  return {data, v.dtype, rows_last ? 1 : v.stride[rows], rows_last ? v.stride[rows] : 1};
}

}  // namespace

Plan matmul_plan(const MatmulArgs& args) {
  return {.workspace_bytes = gemm_workspace_bytes(args.c.rank == 3 ? args.c.shape[0] : 1)};
}

void matmul(const Plan&, const MatmulArgs& args, void* workspace, Stream&) {
  const int r = args.c.rank - 2;
  const int64_t count = r == 1 ? args.c.shape[0] : 1;
  Gemm* problems = static_cast<Gemm*>(workspace);
  for (int64_t i = 0; i < count; ++i)
    problems[i] = {.a = operand(args.a, i, args.transpose_a),
                   .b = operand(args.b, i, !args.transpose_b),
                   .c = args.c.as<char>() + i * (r == 1 ? args.c.stride[0] : 0) *
                                                static_cast<int64_t>(size_of(args.c.dtype)),
                   .c_dtype = args.c.dtype,
                   .c_stride = args.c.stride[r],
                   .m = args.c.shape[r],
                   .n = args.c.shape[r + 1],
                   .k = args.a.shape[args.transpose_a ? r : r + 1],
                   .bf16 = args.compute == DType::kBF16,
                   .panels = args.panels.data};
  gemm_batch(problems, count, static_cast<char*>(workspace) + gemm_problems_bytes(count));
}

bool panels_wanted(int64_t rows, DType compute) {
  return gemm_wants_panels(rows, compute == DType::kBF16);
}

bool panels_taken(int64_t rows, DType compute) {
  return gemm_takes_panels(rows, compute == DType::kBF16);
}

int64_t panels_count(int64_t n, int64_t k) { return PairPanels{n, k}.count(); }

void pack_panels(const Plan&, const PackPanelsArgs& args, void*, Stream&) {
  for (int64_t e = 0; e < args.panels.shape[0]; ++e)
    gemm_pack_panels(operand(args.weight, e, false),
                     args.weight.shape[args.weight.rank - 2],
                     args.weight.shape[args.weight.rank - 1],
                     args.panels.as<int32_t>() + e * args.panels.stride[0]);
}

}  // namespace ferry::ops::FERRY_TIER
