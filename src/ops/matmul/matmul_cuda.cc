// One launch, batches above each other.
#include "ops/matmul/matmul_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/matmul/matmul_cuda_launch.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops::cuda {

void launch_matmul(Stream& stream, const MatmulCuda& call, int64_t batches, bool bf16) {
  static const Code code("matmul");
  code.launch(
      stream,
      bf16 ? "matmul_bf16" : "matmul_f32",
      {blocks_of(call.m, kMatmulTile), blocks_of(call.n, kMatmulTile), blocks_of(batches, 1)},
      {kMatmulThreads, kMatmulThreads},
      call);
}

void matmul(const Plan&, const MatmulArgs& args, void*, Stream& stream) {
  const int r = args.c.rank - 2;
  const int64_t batches = r == 1 ? args.c.shape[0] : 1;
  if (args.c.count() == 0) return;
  const auto batch_stride = [&](const View& v) { return r == 1 ? v.stride[0] : 0; };
  const MatmulCuda call{.a = args.a.data,
                        .b = args.b.data,
                        .c = args.c.data,
                        .m = args.c.shape[r],
                        .n = args.c.shape[r + 1],
                        .k = args.a.shape[args.transpose_a ? r : r + 1],
                        .a_row = args.transpose_a ? 1 : args.a.stride[r],
                        .a_k = args.transpose_a ? args.a.stride[r] : 1,
                        .b_column = args.transpose_b ? args.b.stride[r] : 1,
                        .b_k = args.transpose_b ? 1 : args.b.stride[r],
                        .c_row = args.c.stride[r],
                        .a_batch = batch_stride(args.a),
                        .b_batch = batch_stride(args.b),
                        .c_batch = batch_stride(args.c),
                        .a_bf16 = is_bf16(args.a),
                        .b_bf16 = is_bf16(args.b),
                        .c_bf16 = is_bf16(args.c)};
  launch_matmul(stream, call, batches, args.compute == DType::kBF16);
}

}  // namespace ferry::ops::cuda
