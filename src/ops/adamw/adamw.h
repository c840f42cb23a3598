// Adam with decoupled weight decay: one step of one parameter.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// Scalars stay double until the kernel: 1 - 0.999f would be off by 1e-5 of itself.
struct AdamW {
  double lr = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
  int64_t step = 1;  // this step's number, from 1
};

/// g = grad * grad_scale;  p *= 1 - lr weight_decay;  m = beta1 m + (1 - beta1) g;
/// v = beta2 v + (1 - beta2) g²;  p -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step)
/// + eps). p is the weight's value; p, m and v change in place, and the weight's version rises.
///
/// Shapes    w, m, v, grad alike; grad may be a strided view.
/// Types     f32. The scalars are computed in float64 and rounded once to f32.
/// Gradient  none.
/// Errors    check: shapes, types, step >= 1.
/// Source    Loshchilov & Hutter 2017, arXiv 1711.05101; the order of operations is
///           torch.optim.AdamW's.
void adamw_update(Weight& w,
                  const Tensor& m,
                  const Tensor& v,
                  const Tensor& grad,
                  const AdamW& options,
                  float grad_scale = 1);

}  // namespace ferry::ops
