// One launch, batches above each other.
#include "ops/matmul/matmul_cuda.h"

#include "device/tensor_products.h"
#include "ops/cuda/launch.h"
#include "ops/matmul/matmul_cuda_launch.h"
#include "ops/matmul/matmul_kernels.h"

namespace ferry::ops::cuda {

namespace {

/// Pieces of 16 bytes can be copied as they lie: `line`, from one to the next, and the batch's stride.
bool aligned(const void* at, int64_t line, int64_t batch) {
  constexpr int64_t kPiece = 8;
  return reinterpret_cast<uintptr_t>(at) % 16 == 0 && line % kPiece == 0 && batch % kPiece == 0;
}

void launch_tensor(Stream& stream, const Code& code, const MatmulCuda& call, int64_t batches) {
  check(call.k <= INT32_MAX && call.m <= INT32_MAX && call.n <= INT32_MAX,
        "cuda: a product of [{}, {}] and [{}, {}]",
        call.m,
        call.k,
        call.k,
        call.n);
  const TensorLayout layout = tensor_layout(call, batches);
  const bool few = layout == TensorLayout::kKK && call.m <= kTensorFewM;
  const char* const kernel = few                           ? "matmul_tensor_few_rows"
                             : layout == TensorLayout::kKK ? "matmul_tensor_kk"
                             : layout == TensorLayout::kKR ? "matmul_tensor_kr"
                             : layout == TensorLayout::kRR ? "matmul_tensor_rr"
                                                           : "matmul_tensor_any";
  code.launch(stream,
              kernel,
              {blocks_of(call.m, few ? kTensorFewM : kTensorM),
               blocks_of(call.n, kTensorN),
               blocks_of(batches, 1)},
              {kTensorThreads},
              call);
}

}  // namespace

TensorLayout tensor_layout(const MatmulCuda& c, int64_t batches) {
  const auto batch = [&](int64_t stride) { return batches > 1 ? stride : 0; };
  const bool a_k = c.a_bf16 != 0 && c.a_k == 1 && aligned(c.a, c.a_row, batch(c.a_batch)),
             a_rows = c.a_bf16 != 0 && c.a_row == 1 && aligned(c.a, c.a_k, batch(c.a_batch)),
             b_k = c.b_bf16 != 0 && c.b_k == 1 && aligned(c.b, c.b_column, batch(c.b_batch)),
             b_rows = c.b_bf16 != 0 && c.b_column == 1 && aligned(c.b, c.b_k, batch(c.b_batch));
  if (a_k && b_k) return TensorLayout::kKK;
  if (a_k && b_rows) return TensorLayout::kKR;
  if (a_rows && b_rows) return TensorLayout::kRR;
  return TensorLayout::kAny;
}

void launch_matmul(Stream& stream, const MatmulCuda& call, int64_t batches, bool bf16) {
  static const Code code("matmul");
  if (bf16 && cuda_device(stream).tensor_products())
    return launch_tensor(stream, code, call, batches);
  code.launch(
      stream,
      bf16 ? "matmul_bf16" : "matmul_f32",
      {blocks_of(call.m, kMatmulTile), blocks_of(call.n, kMatmulTile), blocks_of(batches, 1)},
      {kMatmulThreads, kMatmulThreads},
      call);
}

/// Tensor cores are fed with bf16 as it lies in memory: what is wider goes through registers, element by element.
bool takes_rounded(const Device& device, DType compute) {
  return compute == DType::kBF16 && tensor_products(device);
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
