// What the kernel of adamw takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct AdamWArgs {
  View p, m, v;  // f32, in place
  View grad;     // f32; may be strided
  float decay;   // p *= decay
  float beta1, one_minus_beta1;
  float beta2, one_minus_beta2;
  float step_size;  // lr / (1 - beta1^step)
  float root;       // sqrt(1 - beta2^step)
  float eps;
  float grad_scale;
  template <class V>
  void visit(V&& visitor) const {
    visitor.in("grad", grad);
    visitor.in("p", p);
    visitor.in("m", m);
    visitor.in("v", v);
    visitor.out("p", p);
    visitor.out("m", m);
    visitor.out("v", v);
    visitor.number("decay", static_cast<double>(decay));
    visitor.number("beta1", static_cast<double>(beta1));
    visitor.number("one_minus_beta1", static_cast<double>(one_minus_beta1));
    visitor.number("grad_scale", static_cast<double>(grad_scale));
  }
};

DECLARE_CPU_KERNEL(AdamWArgs, adamw)
DECLARE_ASCEND_KERNEL(AdamWArgs, adamw)

}  // namespace ferry::ops
