// What the kernel of axpby takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct AxpbyArgs {
  View x;  // f32 or bf16; may be strided
  View y;  // f32 or bf16; may be strided; in place
  float a, b;
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("y", y);
    v.out("y", y);
    v.number("a", static_cast<double>(a));
    v.number("b", static_cast<double>(b));
  }
};

DECLARE_CPU_KERNEL(AxpbyArgs, axpby)
DECLARE_ASCEND_KERNEL(AxpbyArgs, axpby)

}  // namespace ferry::ops
