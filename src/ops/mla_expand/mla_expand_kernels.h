// What the kernels of mla_expand take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct MlaExpandArgs {
  View kv;    // [T, H, nope + dv] f32 or bf16
  View k_pe;  // [T, dr], the same type
  View k, v;  // [T, H, nope + dr], [T, H, dv]
  template <class V>
  void visit(V&& visitor) const {
    visitor.in("kv", kv);
    visitor.in("k_pe", k_pe);
    visitor.out("k", k);
    visitor.out("v", v);
  }
};

struct MlaExpandBackwardArgs {
  View d_k, d_v;
  View d_kv, d_k_pe;  // overwritten whole
  template <class V>
  void visit(V&& visitor) const {
    visitor.in("d_k", d_k);
    visitor.in("d_v", d_v);
    visitor.out("d_kv", d_kv);
    visitor.out("d_k_pe", d_k_pe);
  }
};

DECLARE_CPU_KERNEL(MlaExpandArgs, mla_expand_forward)
DECLARE_CPU_KERNEL(MlaExpandBackwardArgs, mla_expand_backward)
DECLARE_ASCEND_KERNEL(MlaExpandArgs, mla_expand_forward)
DECLARE_ASCEND_KERNEL(MlaExpandBackwardArgs, mla_expand_backward)

}  // namespace ferry::ops
