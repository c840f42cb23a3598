// The arithmetic of low-rank adaptation, of which there is one definition: training, answering and merging
// compute with the same matrix W + scale B A (docs/numerics.md), f32, rounded as any weight is.
#pragma once

#include "tensor/tensor.h"

namespace ferry {

/// weight += scale b a, in place.
///
/// Shapes    weight [out, in], b [out, rank], a [rank, in].
/// Types     f32.
/// Order     b a as ops::matmul has it, rank ascending; then fma(scale, product, weight). A row of the result
///           depends on that row of weight and b alone.
/// Errors    check: shapes, types.
void add_low_rank(const Tensor& weight, const Tensor& b, const Tensor& a, float scale);

/// What the gradient of W + scale B A says of the factors: d_b = scale d_w aᵀ, d_a = scale bᵀ d_w.
struct LowRankGradients {
  Tensor a, b;
};
LowRankGradients low_rank_gradients(const Tensor& d_w,
                                    const Tensor& b,
                                    const Tensor& a,
                                    float scale);

}  // namespace ferry
