// One launch for all experts.
#include "ops/grouped_linear/grouped_linear_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/grouped_linear/grouped_linear_kernels.h"
#include "ops/matmul/matmul_cuda_launch.h"

namespace ferry::ops::cuda {

void grouped_matmul(const Plan&, const GroupedMatmulArgs& args, void*, Stream& stream) {
  static const Code code("grouped_linear");
  const View &a = args.a, &b = args.b, &c = args.c;
  if (c.count() == 0) return;
  const bool weights = args.product == GroupedProduct::kWeights;
  const bool forward = args.product == GroupedProduct::kForward;
  MatmulCuda p{.a = a.data, .b = b.data, .c = c.data};
  if (weights) {  // c[e] = a[rows]ᵀ b[rows]
    p.m = a.shape[1], p.n = b.shape[1];
    p.a_row = 1, p.a_k = a.stride[0];
    p.b_column = 1, p.b_k = b.stride[0];
    p.c_row = c.stride[1], p.c_batch = c.stride[0];
  } else {  // c[rows] = a[rows] b[e], or its transpose
    p.m = c.shape[0], p.n = c.shape[1], p.k = a.shape[1];
    p.a_row = a.stride[0], p.a_k = 1;
    p.b_column = forward ? b.stride[1] : 1, p.b_k = forward ? 1 : b.stride[1];
    p.b_batch = b.stride[0];
    p.c_row = c.stride[0];
  }
  p.a_bf16 = is_bf16(a), p.b_bf16 = is_bf16(b), p.c_bf16 = is_bf16(c);
  const int64_t experts = args.offsets.shape[0] - 1, rows = a.shape[0];
  check(rows <= INT32_MAX && experts <= INT32_MAX,
        "cuda: a grouped product of {} rows and {} experts",
        rows,
        experts);
  const GroupedMatmulCuda call{
      p, args.offsets.as<int32_t>(), static_cast<int32_t>(experts), weights};
  // Each expert has its blocks where its rows are summed over; otherwise they go by the rows.
  const auto grid = [&](int64_t tile_m, int64_t tile_n) -> CudaGrid {
    if (weights) return {blocks_of(p.m, tile_m), blocks_of(p.n, tile_n), blocks_of(experts, 1)};
    return {blocks_of(grouped_tiles(rows, experts, tile_m), 1), blocks_of(p.n, tile_n), 1};
  };
  if (args.compute == DType::kBF16 && cuda_device(stream).tensor_products()) {
    check(p.k <= INT32_MAX && p.n <= INT32_MAX, "cuda: a grouped product of {} and {}", p.k, p.n);
    const TensorLayout layout = tensor_layout(p, experts);
    code.launch(stream,
                layout == TensorLayout::kKK   ? "grouped_tensor_kk"
                : layout == TensorLayout::kKR ? "grouped_tensor_kr"
                : layout == TensorLayout::kRR ? "grouped_tensor_rr"
                                              : "grouped_tensor_any",
                grid(kTensorM, kTensorN),
                {kTensorThreads},
                call);
    return;
  }
  code.launch(stream,
              args.compute == DType::kBF16 ? "grouped_matmul_bf16" : "grouped_matmul_f32",
              grid(kMatmulTile, kMatmulTile),
              {kMatmulThreads, kMatmulThreads},
              call);
}

}  // namespace ferry::ops::cuda
