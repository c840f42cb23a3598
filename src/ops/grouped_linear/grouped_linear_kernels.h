// What the kernel of grouped_linear takes: the forward pass and both gradients are products of
// groups.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

/// w is [experts, outputs, inputs]; row r belongs to expert e.
enum class GroupedProduct {
  kForward,  // c[r] = a[r] w[e]ᵀ:     a [rows, inputs], b = w, c [rows, outputs]
  kInputs,   // c[r] = a[r] w[e]:      a [rows, outputs], b = w, c [rows, inputs]
  kWeights,  // c[e] = Σ a[r]ᵀ b[r]:   a [rows, outputs], b [rows, inputs], c as w
};

struct GroupedMatmulArgs {
  View a, b;
  View offsets;  // i32 [experts + 1]
  View c;
  GroupedProduct product = GroupedProduct::kForward;
  DType compute = DType::kF32;
  View panels = {};  // kForward: b again, as ops/matmul/packed_weight.h keeps it
  template <class V>
  void visit(V&& v) const {
    v.in("a", a);
    v.in("b", b);
    v.repeat("panels", panels);
    v.in("offsets", offsets);
    v.out("c", c);
    v.number("product", static_cast<double>(product));
    v.number("bf16", compute == DType::kBF16 ? 1 : 0);
  }
};

DECLARE_CPU_KERNEL(GroupedMatmulArgs, grouped_matmul)
DECLARE_CPU_PLAN(GroupedMatmulArgs, grouped_matmul_plan)
DECLARE_ASCEND_KERNEL(GroupedMatmulArgs, grouped_matmul)

}  // namespace ferry::ops
