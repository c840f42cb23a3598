// What the kernels of moe_permute take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct PlanExpertsArgs {
  View chosen;        // [tokens, top_k] i32
  View offsets;       // [experts + 1] i32
  View row_of_slot;   // [tokens, top_k] i32
  View token_of_row;  // [tokens * top_k] i32
  template <class V>
  void visit(V&& v) const {
    v.in("chosen", chosen);
    v.out("offsets", offsets);
    v.out("row_of_slot", row_of_slot);
    v.out("token_of_row", token_of_row);
  }
};

struct PermuteArgs {
  View x;  // [tokens, hidden] f32 or bf16; rows may be strided
  View token_of_row;
  View row_of_slot;  // says the same from the other side: a kernel reads the one that suits it
  View y;            // [tokens * top_k, hidden], x's type
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("token_of_row", token_of_row);
    v.in("row_of_slot", row_of_slot);
    v.out("y", y);
  }
};

struct CombineArgs {
  View x;        // [tokens * top_k, hidden] f32 or bf16; rows may be strided
  View weights;  // [tokens, top_k] f32; not given: all 1 (the gradient of permute)
  View row_of_slot;
  View y;  // [tokens, hidden], x's type
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("weights", weights);
    v.in("row_of_slot", row_of_slot);
    v.out("y", y);
  }
};

struct CombineBackwardArgs {
  View x, weights, row_of_slot, offsets;
  View d_y;        // [tokens, hidden], x's type; rows may be strided
  View d_x;        // [tokens * top_k, hidden], x's type
  View d_weights;  // [tokens, top_k] f32
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("weights", weights);
    v.in("row_of_slot", row_of_slot);
    v.in("offsets", offsets);
    v.in("d_y", d_y);
    v.out("d_x", d_x);
    v.out("d_weights", d_weights);
  }
};

DECLARE_CPU_KERNEL(PlanExpertsArgs, plan_experts)
DECLARE_CPU_KERNEL(PermuteArgs, permute)
DECLARE_CPU_KERNEL(CombineArgs, combine)
DECLARE_CPU_KERNEL(CombineBackwardArgs, combine_backward)
DECLARE_ASCEND_KERNEL(PlanExpertsArgs, plan_experts)
DECLARE_ASCEND_KERNEL(PermuteArgs, permute)
DECLARE_ASCEND_KERNEL(CombineArgs, combine)
DECLARE_ASCEND_KERNEL(CombineBackwardArgs, combine_backward)

}  // namespace ferry::ops
