// What the kernel of token_log_probs takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct TokenLogProbsArgs {
  View logits;        // f32 [rows, vocab], contiguous
  View ids;           // i32 [rows, k]
  View temperatures;  // f32 [rows]
  View y;             // f32 [rows, k]
  template <class V>
  void visit(V&& v) const {
    v.in("logits", logits);
    v.in("ids", ids);
    v.in("temperatures", temperatures);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(TokenLogProbsArgs, token_log_probs)
DECLARE_ASCEND_KERNEL(TokenLogProbsArgs, token_log_probs)

}  // namespace ferry::ops
