// What the kernels of swiglu take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct SwigluArgs {
  View gate, up;  // same shape and type, f32 or bf16; may be strided
  View y;
  template <class V>
  void visit(V&& v) const {
    v.in("gate", gate);
    v.in("up", up);
    v.out("y", y);
  }
};

struct SwigluBackwardArgs {
  View gate, up, d_y;
  View d_gate, d_up;
  template <class V>
  void visit(V&& v) const {
    v.in("gate", gate);
    v.in("up", up);
    v.in("d_y", d_y);
    v.out("d_gate", d_gate);
    v.out("d_up", d_up);
  }
};

DECLARE_CPU_KERNEL(SwigluArgs, swiglu_forward)
DECLARE_CPU_KERNEL(SwigluBackwardArgs, swiglu_backward)
DECLARE_ASCEND_KERNEL(SwigluArgs, swiglu_forward)
DECLARE_ASCEND_KERNEL(SwigluBackwardArgs, swiglu_backward)

}  // namespace ferry::ops
