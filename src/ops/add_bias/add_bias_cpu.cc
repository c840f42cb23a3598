// Rows in parallel; the bias's gradient in column blocks, so that each column sums tokens in order.
#include "ops/add_bias/add_bias_kernels.h"
#include "ops/cpu/loops.h"

namespace ferry::ops::FERRY_TIER {
namespace {

constexpr int64_t kColumnsPerTask = 4 * kLanes;

template <typename Y>
void forward(const AddBiasArgs& a) {
  const int64_t columns = a.x.shape[1];
  parallel_rows(a.x.shape[0], columns, [&](int64_t t) {
    const float* x = a.x.as<float>() + t * columns;
    Y* y = a.y.as<Y>() + t * columns;
    for_lanes(0, columns, [&](int64_t i, int n) {
      store_n(y + i, load_n(x + i, n) + load_n(a.bias.as<float>() + i, n), n);
    });
  });
}

template <typename Y>
void backward(const AddBiasBackwardArgs& a) {
  const int64_t tokens = a.d_y.shape[0], columns = a.d_y.shape[1];
  const int64_t tasks = (columns + kColumnsPerTask - 1) / kColumnsPerTask;
  cpu_pool().parallel_for(tasks, [&](int64_t task, int) {
    const int64_t begin = task * kColumnsPerTask;
    const int64_t end = begin + kColumnsPerTask < columns ? begin + kColumnsPerTask : columns;
    F32x16 sum[kColumnsPerTask / kLanes] = {splat(0), splat(0), splat(0), splat(0)};
    for (int64_t t = 0; t < tokens; ++t) {
      const Y* d_y = a.d_y.as<Y>() + t * a.d_y.stride[0];
      for_lanes(begin, end, [&](int64_t i, int n) {
        F32x16& s = sum[(i - begin) / kLanes];
        s = s + load_n(d_y + i, n);
      });
    }
    for_lanes(begin, end, [&](int64_t i, int n) {
      store_n(a.d_bias.as<float>() + i, sum[(i - begin) / kLanes], n);
    });
  });
}

}  // namespace

void add_bias(const Plan&, const AddBiasArgs& a, void*, Stream&) {
  with_type(a.y.dtype, [&](auto y) { forward<decltype(y)>(a); });
}

void add_bias_backward(const Plan&, const AddBiasBackwardArgs& a, void*, Stream&) {
  with_type(a.d_y.dtype, [&](auto y) { backward<decltype(y)>(a); });
}

}  // namespace ferry::ops::FERRY_TIER
