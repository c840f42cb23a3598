// Rows in parallel; the weight's gradient in column blocks, so that each column sums tokens in
// order.
#include "ops/cpu/loops.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kColumnsPerTask = 4 * kLanes;

template <typename T, typename W>
void forward_row(const T* x, const W* w, T* y, float* rstd, int64_t hidden, float eps) {
  F32x16 squares = splat(0);
  for_lanes(0, hidden, [&](int64_t i, int n) {
    const F32x16 v = load_n(x + i, n);
    squares = fma(v, v, squares);
  });
  const float mean = sum_lanes(squares) / static_cast<float>(hidden);
  *rstd = 1.0f / __builtin_sqrtf(mean + eps);
  const F32x16 r = splat(*rstd);
  for_lanes(0, hidden, [&](int64_t i, int n) {
    store_n(y + i, load_n(x + i, n) * r * load_n(w + i, n), n);
  });
}

// With g = d_y * w and n = x * rstd:  d_x = rstd * (g - n * mean(g * n)).
template <typename T, typename W>
void backward_row(const T* x, const W* w, float rstd, const T* d_y, T* d_x, int64_t hidden) {
  const F32x16 r = splat(rstd);
  F32x16 dot = splat(0);
  for_lanes(0, hidden, [&](int64_t i, int n) {
    dot = fma(load_n(d_y + i, n) * load_n(w + i, n), load_n(x + i, n) * r, dot);
  });
  const F32x16 mean = splat(0.0f - sum_lanes(dot) / static_cast<float>(hidden));
  for_lanes(0, hidden, [&](int64_t i, int n) {
    const F32x16 g = load_n(d_y + i, n) * load_n(w + i, n);
    store_n(d_x + i, r * fma(load_n(x + i, n) * r, mean, g), n);
  });
}

template <typename T, typename W>
void forward(const RmsNormArgs& a) {
  const int64_t tokens = a.x.shape[0], hidden = a.x.shape[1];
  cpu_pool().parallel_for((tokens + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < tokens && t < (task + 1) * kRowsPerTask; ++t)
      forward_row(a.x.as<T>() + t * a.x.stride[0],
                  a.weight.as<W>(),
                  a.y.as<T>() + t * hidden,
                  a.rstd.as<float>() + t,
                  hidden,
                  a.eps);
  });
}

template <typename T, typename W>
void backward(const RmsNormBackwardArgs& a) {
  const int64_t tokens = a.x.shape[0], hidden = a.x.shape[1];
  cpu_pool().parallel_for((tokens + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    for (int64_t t = task * kRowsPerTask; t < tokens && t < (task + 1) * kRowsPerTask; ++t)
      backward_row(a.x.as<T>() + t * a.x.stride[0],
                   a.weight.as<W>(),
                   a.rstd.as<float>()[t],
                   a.d_y.as<T>() + t * a.d_y.stride[0],
                   a.d_x.as<T>() + t * hidden,
                   hidden);
  });
  if (!a.d_weight.given()) return;
  cpu_pool().parallel_for((hidden + kColumnsPerTask - 1) / kColumnsPerTask, [&](int64_t task, int) {
    const int64_t begin = task * kColumnsPerTask;
    const int64_t end = begin + kColumnsPerTask < hidden ? begin + kColumnsPerTask : hidden;
    F32x16 sum[kColumnsPerTask / kLanes] = {splat(0), splat(0), splat(0), splat(0)};
    for (int64_t t = 0; t < tokens; ++t) {
      const F32x16 r = splat(a.rstd.as<float>()[t]);
      const T* x = a.x.as<T>() + t * a.x.stride[0];
      const T* d_y = a.d_y.as<T>() + t * a.d_y.stride[0];
      for_lanes(begin, end, [&](int64_t i, int n) {
        F32x16& s = sum[(i - begin) / kLanes];
        s = fma(load_n(d_y + i, n), load_n(x + i, n) * r, s);
      });
    }
    for_lanes(begin, end, [&](int64_t i, int n) {
      store_n(a.d_weight.as<float>() + i, sum[(i - begin) / kLanes], n);
    });
  });
}

}  // namespace

void rms_norm_forward(const Plan&, const RmsNormArgs& a, void*, Stream&) {
  const bool x16 = a.x.dtype == DType::kBF16, w16 = a.weight.dtype == DType::kBF16;
  if (x16)
    w16 ? forward<bf16_t, bf16_t>(a) : forward<bf16_t, float>(a);
  else
    w16 ? forward<float, bf16_t>(a) : forward<float, float>(a);
}

void rms_norm_backward(const Plan&, const RmsNormBackwardArgs& a, void*, Stream&) {
  const bool x16 = a.x.dtype == DType::kBF16, w16 = a.weight.dtype == DType::kBF16;
  if (x16)
    w16 ? backward<bf16_t, bf16_t>(a) : backward<bf16_t, float>(a);
  else
    w16 ? backward<float, bf16_t>(a) : backward<float, float>(a);
}

}  // namespace ferry::ops::FERRY_TIER
