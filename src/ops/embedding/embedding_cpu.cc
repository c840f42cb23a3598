// Rows in parallel; the gradient in column blocks, so that each row of it sums tokens in order
// without atomics, and frequent tokens (low ids) burden all threads alike.
#include "ops/cpu/code_row.h"
#include "ops/cpu/loops.h"
#include "ops/embedding/embedding_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kColumnsPerTask = 4 * kLanes;  // whole cache lines of f32 and of bf16

/// Rows of a matrix of whole numbers.
void rows_of_codes(const EmbeddingArgs& a) {
  const CodePanels l = a.layout();
  with_type(a.y.dtype, [&](auto y_type) {
    using Y = decltype(y_type);
    parallel_rows(a.y.shape[0], l.columns, [&](int64_t t) {
      const int64_t id = a.ids.as<int32_t>()[t];
      Y* const y = a.y.as<Y>() + t * l.columns;
      if (0 <= id && id < l.rows)
        numbers_of_row(l, a.weight.as<uint8_t>(), a.scales.data, id, y);
      else
        for_lanes(0, l.columns, [&](int64_t i, int n) { store_n(y + i, splat(0), n); });
    });
  });
}

}  // namespace

void embedding_forward(const Plan&, const EmbeddingArgs& a, void*, Stream&) {
  if (a.scales.given()) return rows_of_codes(a);
  const int64_t tokens = a.y.shape[0], hidden = a.y.shape[1], vocab = a.weight.shape[0];
  with_type(a.weight.dtype, [&](auto w_type) {
    with_type(a.y.dtype, [&](auto y_type) {
      using W = decltype(w_type);
      using Y = decltype(y_type);
      parallel_rows(tokens, hidden, [&](int64_t t) {
        const int64_t id = a.ids.as<int32_t>()[t];
        const bool known = 0 <= id && id < vocab;
        const W* w = a.weight.as<W>() + (known ? id * a.weight.stride[0] : 0);
        Y* y = a.y.as<Y>() + t * hidden;
        for_lanes(0, hidden, [&](int64_t i, int n) {
          store_n(y + i, known ? load_n(w + i, n) : splat(0), n);
        });
      });
    });
  });
}

void embedding_backward(const Plan&, const EmbeddingBackwardArgs& a, void*, Stream&) {
  const int64_t tokens = a.ids.shape[0], vocab = a.d_weight.shape[0], hidden = a.d_weight.shape[1];
  with_type(a.d_y.dtype, [&](auto type) {
    using T = decltype(type);
    cpu_pool().parallel_for(
        (hidden + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task, int) {
          const int64_t begin = task * kColumnsPerTask;
          const int64_t end = begin + kColumnsPerTask < hidden ? begin + kColumnsPerTask : hidden;
          float* d_w = a.d_weight.as<float>();
          for (int64_t v = 0; v < vocab; ++v)
            for_lanes(
                begin, end, [&](int64_t i, int n) { store_n(d_w + v * hidden + i, splat(0), n); });
          for (int64_t t = 0; t < tokens; ++t) {
            const int64_t id = a.ids.as<int32_t>()[t];
            if (id < 0 || id >= vocab) continue;
            const T* d_y = a.d_y.as<T>() + t * a.d_y.stride[0];
            float* row = d_w + id * hidden;
            for_lanes(begin, end, [&](int64_t i, int n) {
              store_n(row + i, load_n(row + i, n) + load_n(d_y + i, n), n);
            });
          }
        });
  });
}

}  // namespace ferry::ops::FERRY_TIER
