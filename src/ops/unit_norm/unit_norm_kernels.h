// What the kernel of unit_norm takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

inline constexpr double kUnitNormLeast = 1e-20;  // added to the norm

struct UnitNormArgs {
  View x;  // f32 [batch, n, m], contiguous
  View y;  // likewise
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(UnitNormArgs, unit_norm)
DECLARE_CPU_PLAN(UnitNormArgs, unit_norm_plan)
DECLARE_ASCEND_KERNEL(UnitNormArgs, unit_norm)

}  // namespace ferry::ops
