// Chunks of tokens: logits, losses and d_logits beside them, then the two products of the gradient.
#include "ops/cross_entropy/cross_entropy_cuda.h"

#include "ops/cross_entropy/cross_entropy.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"
#include "ops/cuda/launch.h"
#include "ops/matmul/matmul_cuda_launch.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("cross_entropy");
  return code;
}

}  // namespace

Plan cross_entropy_plan(const CrossEntropyArgs& a) {
  const auto elements = static_cast<size_t>(a.chunk * logits_stride(a.vocab));
  const bool gradient = a.d_hidden.given() || a.d_head.given();
  return {.workspace_bytes = elements * (sizeof(float) + (gradient ? size_of(a.hidden.dtype) : 0))};
}

void cross_entropy(const Plan&, const CrossEntropyArgs& a, void* workspace, Stream& stream) {
  if (a.head_scales.given())
    throw DeviceError(stream.device().name(),
                      0,
                      fmt::format("cross_entropy: {} has no kernel for a head that is codes",
                                  stream.device().name()));
  const int64_t tokens = a.hidden.shape[0], inputs = a.hidden.shape[1], vocab = a.vocab;
  const int64_t stride = logits_stride(vocab);
  const bool bf16 = is_bf16(a.hidden), gradient = a.d_hidden.given() || a.d_head.given();
  const auto size = static_cast<int64_t>(size_of(a.hidden.dtype));
  auto* const logits = static_cast<float*>(workspace);
  void* const d_logits = gradient ? logits + a.chunk * stride : nullptr;
  if (tokens == 0 && a.d_head.given())
    stream.device().fill_zero(a.d_head.data, static_cast<size_t>(vocab * inputs) * sizeof(float));
  stream.begin("cross_entropy");
  for (int64_t begin = 0; begin < tokens; begin += a.chunk) {
    const int64_t rows = std::min(a.chunk, tokens - begin);
    const char* const hidden = a.hidden.as<const char>() + begin * a.hidden.stride[0] * size;
    launch_matmul(stream,
                  {.a = hidden,
                   .b = a.head.data,
                   .c = logits,
                   .m = rows,
                   .n = vocab,
                   .k = inputs,
                   .a_row = a.hidden.stride[0],
                   .a_k = 1,
                   .b_column = a.head.stride[0],
                   .b_k = 1,
                   .c_row = stride,
                   .a_bf16 = bf16,
                   .b_bf16 = is_bf16(a.head)},
                  1,
                  bf16);
    code().launch(
        stream,
        by_type(a.hidden.dtype, "token_losses_f32", "token_losses_bf16"),
        rows_grid(rows),
        kRowsBlock,
        TokenLossesCuda{.logits = logits,
                        .d_logits = d_logits,
                        .labels = a.labels.as<int32_t>() + begin,
                        .weights = a.weights.given() ? a.weights.as<float>() + begin : nullptr,
                        .losses = a.token_losses.as<float>() + begin,
                        .rows = rows,
                        .vocab = vocab,
                        .stride = stride,
                        .scale = a.scale});
    if (a.d_hidden.given() && inputs > 0)
      launch_matmul(stream,
                    {.a = d_logits,
                     .b = a.head.data,
                     .c = a.d_hidden.as<char>() + begin * inputs * size,
                     .m = rows,
                     .n = inputs,
                     .k = vocab,
                     .a_row = stride,
                     .a_k = 1,
                     .b_column = 1,
                     .b_k = a.head.stride[0],
                     .c_row = inputs,
                     .a_bf16 = bf16,
                     .b_bf16 = is_bf16(a.head),
                     .c_bf16 = is_bf16(a.d_hidden)},
                    1,
                    bf16);
    if (a.d_head.given() && inputs > 0)
      launch_matmul(stream,
                    {.a = d_logits,
                     .b = hidden,
                     .c = a.d_head.data,
                     .m = vocab,
                     .n = inputs,
                     .k = rows,
                     .a_row = 1,
                     .a_k = stride,
                     .b_column = 1,
                     .b_k = a.hidden.stride[0],
                     .c_row = inputs,
                     .a_bf16 = bf16,
                     .b_bf16 = bf16,
                     .accumulate = begin > 0},
                    1,
                    bf16);
  }
  code().launch(
      stream,
      "mean_loss",
      {},
      {32},
      LossCuda{
          a.token_losses.as<float>(), a.weights.as<float>(), a.loss.as<float>(), tokens, a.scale});
}

void cross_entropy_backward(const Plan&, const CrossEntropyBackwardArgs& a, void*, Stream& stream) {
  launch_elements(stream,
                  code(),
                  by_type(a.gradient.dtype, "loss_gradient_f32", "loss_gradient_bf16"),
                  LossGradientCuda{a.d_loss.as<float>(), a.gradient.data, make_runs(a.gradient)});
}

}  // namespace ferry::ops::cuda
