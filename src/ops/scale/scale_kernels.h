// What the kernel of scale takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct ScaleArgs {
  View x;       // f32 or bf16; may be strided
  View factor;  // [1] f32 on the device; not given: use `number`
  View y;       // x's shape and type
  float number;
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("factor", factor);
    v.out("y", y);
    v.number("number", static_cast<double>(number));
  }
};

DECLARE_CPU_KERNEL(ScaleArgs, scale)
DECLARE_ASCEND_KERNEL(ScaleArgs, scale)

}  // namespace ferry::ops
