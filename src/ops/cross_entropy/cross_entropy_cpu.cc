// Chunks of tokens: logits, losses and d_logits in place of them, then the two products of the
// gradient.
#include "ops/cpu/code_product.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/log_sum_exp.h"
#include "ops/cpu/loops.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/cross_entropy/cross_entropy_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kElementsPerTask = 16384;

/// The logits of a token become d_logits in hidden's type T, in the same place. Returns the loss.
template <typename T>
float token(float* logits, int64_t vocab, int32_t label, float scale, bool gradient) {
  T* const d = reinterpret_cast<T*>(logits);
  if (label < 0 || label >= vocab) {
    const float none = label == -1 ? 0 : __builtin_nanf("");
    if (gradient)
      for (int64_t i = 0; i < vocab; i += kLanes)
        store_n(d + i, splat(none), lanes_left(vocab - i));
    return none;
  }
  const float at_label = logits[label];
  const float m = row_max(logits, vocab);
  const float sum = sum_exp(
      vocab,
      [&](int64_t i, int n) { return load_n(logits + i, n) - splat(m); },
      [&](int64_t i, F32x16 e, int n) { store_n(logits + i, e, n); });
  float log_sum[kLanes];
  store(log_sum, log(splat(sum)));
  if (gradient) {
    const float r = scale / sum;
    const F32x16 corrected = splat(logits[label] * r - scale);
    // d is not wider than logits, so what it overwrites has been read.
    for (int64_t i = 0; i < vocab; i += kLanes) {
      const int left = lanes_left(vocab - i);
      store_n(d + i, load_n(logits + i, left) * splat(r), left);
    }
    store_n(d + label, corrected, 1);
  }
  return log_sum[0] + (m - at_label);
}

template <typename T>
void losses_and_gradients(const CrossEntropyArgs& a, void* workspace) {
  const int64_t tokens = a.hidden.shape[0], inputs = a.hidden.shape[1], vocab = a.vocab;
  const int64_t stride = logits_stride(vocab);
  const bool bf16 = a.hidden.dtype == DType::kBF16;
  const DType d_type = a.d_hidden.dtype;  // hidden's, or f32 where this kernel judges another
  const bool gradient = a.d_hidden.given() || a.d_head.given();
  float* const logits = static_cast<float*>(workspace);
  void* const rest = logits + a.chunk * stride;
  const GemmOperand head_by_row{a.head.data, a.head.dtype, a.head.stride[0], 1};
  const GemmOperand head_by_column{a.head.data, a.head.dtype, 1, a.head.stride[0]};
  const int64_t d_stride = stride * static_cast<int64_t>(sizeof(float) / sizeof(T));
  int64_t begin = 0;
  do {  // once even without tokens: d_head becomes zero
    const int64_t rows = tokens - begin < a.chunk ? tokens - begin : a.chunk;
    T* const hidden = a.hidden.as<T>() + begin * a.hidden.stride[0];
    if (a.head_scales.given())
      code_product({.x = hidden,
                    .x_dtype = a.hidden.dtype,
                    .x_stride = a.hidden.stride[0],
                    .y = logits,
                    .y_stride = stride,
                    .rows = rows,
                    .layout = a.head_layout(),
                    .panels = a.head.as<uint8_t>(),
                    .scales = a.head_scales.data},
                   rest);
    else
      gemm({.a = {hidden, a.hidden.dtype, a.hidden.stride[0], 1},
            .b = head_by_row,
            .c = logits,
            .c_stride = stride,
            .m = rows,
            .n = vocab,
            .k = inputs,
            .bf16 = bf16},
           rest);
    cpu_pool().parallel_for(rows, [&](int64_t r, int) {
      const int64_t t = begin + r;
      const float scale = a.weights.given() ? a.scale * a.weights.as<float>()[t] : a.scale;
      a.token_losses.as<float>()[t] =
          token<T>(logits + r * stride, vocab, a.labels.as<int32_t>()[t], scale, gradient);
    });
    if (a.d_hidden.given())
      gemm({.a = {logits, a.hidden.dtype, d_stride, 1},
            .b = head_by_column,
            .c = a.d_hidden.as<char>() + begin * inputs * static_cast<int64_t>(size_of(d_type)),
            .c_dtype = d_type,
            .c_stride = inputs,
            .m = rows,
            .n = inputs,
            .k = vocab,
            .bf16 = bf16},
           rest);
    if (a.d_head.given())
      gemm({.a = {logits, a.hidden.dtype, 1, d_stride},
            .b = {hidden, a.hidden.dtype, 1, a.hidden.stride[0]},
            .c = a.d_head.data,
            .c_stride = inputs,
            .m = vocab,
            .n = inputs,
            .k = rows,
            .bf16 = bf16,
            .accumulate = begin > 0},
           rest);
    begin += rows;
  } while (begin < tokens);
}

}  // namespace

Plan cross_entropy_plan(const CrossEntropyArgs& args) {
  const int64_t logits = args.chunk * logits_stride(args.vocab);
  const size_t rest = args.head_scales.given()
                          ? code_product_bytes(args.head_layout(), args.chunk, 1)
                          : gemm_workspace_bytes(0);
  return {.workspace_bytes = static_cast<size_t>(logits) * sizeof(float) + rest};
}

void cross_entropy(const Plan&, const CrossEntropyArgs& a, void* workspace, Stream&) {
  if (a.hidden.dtype == DType::kBF16)
    losses_and_gradients<bf16_t>(a, workspace);
  else
    losses_and_gradients<float>(a, workspace);
  F32x16 sum = splat(0);
  const int64_t tokens = a.hidden.shape[0];
  for (int64_t t = 0; t < tokens; t += kLanes) {
    const int left = lanes_left(tokens - t);
    F32x16 losses = load_n(a.token_losses.as<float>() + t, left);
    if (a.weights.given()) losses = losses * load_n(a.weights.as<float>() + t, left);
    sum = sum + losses;
  }
  *a.loss.as<float>() = a.scale * sum_lanes(sum);
}

void cross_entropy_backward(const Plan&, const CrossEntropyBackwardArgs& a, void*, Stream&) {
  const F32x16 factor = splat(*a.d_loss.as<float>());
  const int64_t count = a.gradient.count();
  const auto scale = [&](auto* x) {
    cpu_pool().parallel_for(
        (count + kElementsPerTask - 1) / kElementsPerTask, [&](int64_t task, int) {
          const int64_t end =
              (task + 1) * kElementsPerTask < count ? (task + 1) * kElementsPerTask : count;
          for (int64_t i = task * kElementsPerTask; i < end; i += kLanes) {
            const int left = lanes_left(end - i);
            store_n(x + i, load_n(x + i, left) * factor, left);
          }
        });
  };
  if (a.gradient.dtype == DType::kBF16)
    scale(a.gradient.as<bf16_t>());
  else
    scale(a.gradient.as<float>());
}

}  // namespace ferry::ops::FERRY_TIER
