// What the kernel of cast takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct CastArgs {
  View x;  // f32 or bf16; may be strided
  View y;  // x's shape, f32 or bf16
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(CastArgs, cast)
DECLARE_ASCEND_KERNEL(CastArgs, cast)

}  // namespace ferry::ops
