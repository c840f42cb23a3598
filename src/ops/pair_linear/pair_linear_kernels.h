// What the kernels of pair_linear take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/pair_panels.h"
#include "tensor/view.h"

namespace ferry::ops {

struct PairLinearArgs {
  View x;        // [tokens, inputs] bf16; rows may be strided
  View panels;   // i32 [matrices, pairs of one's panels]
  View offsets;  // i32 [matrices + 1]; not given: one matrix, all rows
  View y;        // [tokens, outputs] f32 or bf16
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("panels", panels);
    v.in("offsets", offsets);
    v.out("y", y);
  }
};

struct PairRowsArgs {
  View
      ids;  // [tokens] i32, those outside the matrix give zeros; not given: all rows of all matrices
  View panels;   // i32 [matrices, pairs of one's panels]
  View y;        // [tokens, columns] f32 or bf16, contiguous
  int64_t rows;  // of a matrix
  template <class V>
  void visit(V&& v) const {
    v.in("ids", ids);
    v.in("panels", panels);
    v.out("y", y);
    v.number("rows", static_cast<double>(rows));
  }
};

DECLARE_CPU_KERNEL(PairLinearArgs, pair_linear)
DECLARE_CPU_PLAN(PairLinearArgs, pair_linear_plan)
DECLARE_CPU_KERNEL(PairRowsArgs, pair_rows)

}  // namespace ferry::ops
