// What the kernels of add_bias take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct AddBiasArgs {
  View x;     // [tokens, columns] f32
  View bias;  // [columns] f32
  View y;     // [tokens, columns] f32 or bf16
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("bias", bias);
    v.out("y", y);
  }
};

struct AddBiasBackwardArgs {
  View d_y;     // [tokens, columns] f32 or bf16
  View d_bias;  // [columns] f32, overwritten
  template <class V>
  void visit(V&& v) const {
    v.in("d_y", d_y);
    v.out("d_bias", d_bias);
  }
};

DECLARE_CPU_KERNEL(AddBiasArgs, add_bias)
DECLARE_CPU_KERNEL(AddBiasBackwardArgs, add_bias_backward)
DECLARE_ASCEND_KERNEL(AddBiasArgs, add_bias)
DECLARE_ASCEND_KERNEL(AddBiasBackwardArgs, add_bias_backward)

}  // namespace ferry::ops
