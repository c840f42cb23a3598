// What the kernels of mla_expand take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct MlaExpandArgs {
  View kv;    // [tokens, heads, nope + value], contiguous
  View k_pe;  // [tokens, rope], rows may be strided
  View k;     // [tokens, heads, nope + rope]
  View v;     // [tokens, heads, value]
  template <class V>
  void visit(V&& visitor) const {
    visitor.in("kv", kv);
    visitor.in("k_pe", k_pe);
    visitor.out("k", k);
    visitor.out("v", v);
  }
};

struct MlaExpandBackwardArgs {
  View d_k, d_v;   // contiguous
  View d_kv;       // overwritten
  View d_k_pe;     // overwritten: the sum over heads
  template <class V>
  void visit(V&& visitor) const {
    visitor.in("d_k", d_k);
    visitor.in("d_v", d_v);
    visitor.out("d_kv", d_kv);
    visitor.out("d_k_pe", d_k_pe);
  }
};

DECLARE_CPU_KERNEL(MlaExpandArgs, mla_expand)
DECLARE_CPU_KERNEL(MlaExpandBackwardArgs, mla_expand_backward)

}  // namespace ferry::ops
