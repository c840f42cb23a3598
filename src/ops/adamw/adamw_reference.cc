// The paper's algorithm 2 with bias-corrected moments spelled out.
#include "ops/adamw/adamw_reference.h"

#include <cmath>

#include "base/math.h"

namespace ferry::ops {

AdamWState adamw_reference(AdamWState s, const RefTensor& grad, const AdamW& o, double grad_scale) {
  const auto step = static_cast<double>(o.step);
  for (int64_t i = 0; i < grad.shape.count(); ++i) {
    const double g = grad[i] * grad_scale;
    s.m[i] = o.beta1 * s.m[i] + (1 - o.beta1) * g;
    s.v[i] = o.beta2 * s.v[i] + (1 - o.beta2) * g * g;
    const double m_hat = s.m[i] / (1 - math::pow(o.beta1, step));
    const double v_hat = s.v[i] / (1 - math::pow(o.beta2, step));
    s.p[i] = s.p[i] - o.lr * o.weight_decay * s.p[i] - o.lr * m_hat / (std::sqrt(v_hat) + o.eps);
  }
  return s;
}

}  // namespace ferry::ops
