// What the kernels of embedding take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct EmbeddingArgs {
  View ids;     // [tokens] i32; ids outside the vocabulary give zeros
  View weight;  // [vocab, hidden] f32 or bf16
  View y;       // [tokens, hidden] f32 or bf16
  template <class V>
  void visit(V&& v) const {
    v.in("ids", ids);
    v.in("weight", weight);
    v.out("y", y);
  }
};

struct EmbeddingBackwardArgs {
  View ids;
  View d_y;       // [tokens, hidden] f32 or bf16; rows may be strided
  View d_weight;  // [vocab, hidden] f32, overwritten
  template <class V>
  void visit(V&& v) const {
    v.in("ids", ids);
    v.in("d_y", d_y);
    v.out("d_weight", d_weight);
  }
};

DECLARE_CPU_KERNEL(EmbeddingArgs, embedding_forward)
DECLARE_CPU_KERNEL(EmbeddingBackwardArgs, embedding_backward)
DECLARE_ASCEND_KERNEL(EmbeddingArgs, embedding_forward)
DECLARE_ASCEND_KERNEL(EmbeddingBackwardArgs, embedding_backward)

}  // namespace ferry::ops
