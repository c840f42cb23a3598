// What the kernels of rms_norm take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct RmsNormArgs {
  View x;       // [tokens, hidden] f32 or bf16; rows may be strided
  View weight;  // [hidden] f32 or bf16
  View y;       // [tokens, hidden], x's type
  View rstd;    // [tokens] f32: 1 / sqrt(mean(x²) + eps), kept for the gradient
  float eps;
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("weight", weight);
    v.out("y", y);
    v.out("rstd", rstd);
    v.number("eps", static_cast<double>(eps));
  }
};

struct RmsNormBackwardArgs {
  View x, weight, rstd, d_y;
  View d_x;       // x's type
  View d_weight;  // [hidden] f32, overwritten; not given if not wanted
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("weight", weight);
    v.in("rstd", rstd);
    v.in("d_y", d_y);
    v.out("d_x", d_x);
    v.out("d_weight", d_weight);
  }
};

DECLARE_CPU_KERNEL(RmsNormArgs, rms_norm_forward)
DECLARE_CPU_KERNEL(RmsNormBackwardArgs, rms_norm_backward)
DECLARE_ASCEND_KERNEL(RmsNormArgs, rms_norm_forward)
DECLARE_ASCEND_KERNEL(RmsNormBackwardArgs, rms_norm_backward)

}  // namespace ferry::ops
