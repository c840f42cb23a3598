// What the kernels of add take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct AddArgs {
  View a, b;  // same shape; may be strided; f32 or bf16, the same type
  View y;     // may be a itself (accumulation)
  template <class V>
  void visit(V&& v) const {
    v.in("a", a);
    v.in("b", b);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(AddArgs, add)
DECLARE_ASCEND_KERNEL(AddArgs, add)

}  // namespace ferry::ops
