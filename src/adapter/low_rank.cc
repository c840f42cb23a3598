#include "adapter/low_rank.h"

#include "ops/axpby/axpby.h"
#include "ops/matmul/matmul.h"

namespace ferry {
namespace {

Tensor scaled(float scale, const Tensor& x) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  ops::axpby(scale, x, 0, y);
  return y;
}

}  // namespace

void add_low_rank(const Tensor& weight, const Tensor& b, const Tensor& a, float scale) {
  ops::axpby(scale, ops::matmul(b, a), 1, weight);
}

LowRankGradients low_rank_gradients(const Tensor& d_w,
                                    const Tensor& b,
                                    const Tensor& a,
                                    float scale) {
  return {.a = scaled(scale, ops::matmul(b, d_w, {.transpose_a = true})),
          .b = scaled(scale, ops::matmul(d_w, a, {.transpose_b = true}))};
}

}  // namespace ferry
