// Rows forward; on the way back zeros first, then the sums.
#include "ops/embedding/embedding_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/embedding/embedding_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("embedding");
  return code;
}

}  // namespace

void embedding_forward(const Plan&, const EmbeddingArgs& a, void*, Stream& stream) {
  if (a.scales.given())
    throw DeviceError(stream.device().name(),
                      0,
                      fmt::format("embedding: {} has no kernel for weights that are codes",
                                  stream.device().name()));
  if (a.y.count() == 0) return;
  const EmbeddingCuda args{.ids = a.ids.as<int32_t>(),
                           .weight = a.weight.data,
                           .y = a.y.data,
                           .tokens = a.y.shape[0],
                           .hidden = a.y.shape[1],
                           .vocab = a.weight.shape[0],
                           .weight_stride = a.weight.stride[0],
                           .weight_bf16 = is_bf16(a.weight),
                           .y_bf16 = is_bf16(a.y)};
  const RunsGrid size(Runs<1>{.length = args.hidden, .rows = static_cast<int32_t>(args.tokens)});
  code().launch(stream, "embedding_rows", size.grid, size.block, args);
}

void embedding_backward(const Plan&, const EmbeddingBackwardArgs& a, void*, Stream& stream) {
  const int64_t count = a.d_weight.count();
  stream.device().fill_zero(a.d_weight.data, static_cast<size_t>(count) * sizeof(float));
  stream.begin("embedding_backward");
  if (a.d_y.count() == 0 || count == 0) return;
  const EmbeddingBackwardCuda args{.ids = a.ids.as<int32_t>(),
                                   .d_y = a.d_y.data,
                                   .d_weight = a.d_weight.as<float>(),
                                   .tokens = a.ids.shape[0],
                                   .hidden = a.d_weight.shape[1],
                                   .vocab = a.d_weight.shape[0],
                                   .d_y_stride = a.d_y.stride[0],
                                   .d_y_bf16 = is_bf16(a.d_y)};
  code().launch(stream, "embedding_gradient", columns_grid(args.hidden), kColumnsBlock, args);
}

}  // namespace ferry::ops::cuda
