// What the kernels of embedding take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/code_panels.h"
#include "tensor/view.h"

namespace ferry::ops {

struct EmbeddingArgs {
  View ids;     // [tokens] i32; ids outside the vocabulary give zeros
  View weight;  // [vocab, hidden] f32 or bf16; or panels of codes, as quantized_linear has them
  View y;       // [tokens, hidden] f32 or bf16
  int64_t vocab;
  View scales = {};        // of codes
  WeightCodes codes = {};  // if there are scales
  template <class V>
  void visit(V&& v) const {
    v.in("ids", ids);
    v.in("weight", weight);
    v.in("scales", scales);
    v.out("y", y);
    v.number("vocab", static_cast<double>(vocab));
    v.number("codes", static_cast<double>(codes));
  }
  CodePanels layout() const { return {codes, vocab, y.shape[1]}; }
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
