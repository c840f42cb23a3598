// What the kernels of concat take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct ConcatArgs {
  View a, b;  // alike but for the last dimension; may be strided
  View y;     // last dimension: a's, then b's
  template <class V>
  void visit(V&& v) const {
    v.in("a", a);
    v.in("b", b);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(ConcatArgs, concat)
DECLARE_ASCEND_KERNEL(ConcatArgs, concat)

}  // namespace ferry::ops
