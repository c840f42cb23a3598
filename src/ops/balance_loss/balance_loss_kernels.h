// What the kernels of balance_loss take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct BalanceLossArgs {
  View scores;    // [tokens, experts] f32
  View experts;   // [tokens, top_k] i32
  View position;  // [tokens] i32: a document begins at each 0
  View begin;     // [documents + 1] i32: first token of each document, then the number of tokens
  View document;  // [tokens] i32: the document of each token
  View share;     // [documents, experts] f32: f
  View loss;      // [1] f32
  float alpha;
  template <class V>
  void visit(V&& v) const {
    v.in("scores", scores);
    v.in("experts", experts);
    v.in("position", position);
    v.out("begin", begin);
    v.out("document", document);
    v.out("share", share);
    v.out("loss", loss);
  }
};

struct BalanceLossBackwardArgs {
  View scores, begin, document, share;
  View d_loss;    // [1] f32
  View d_scores;  // [tokens, experts] f32
  float alpha;
  template <class V>
  void visit(V&& v) const {
    v.in("scores", scores);
    v.in("begin", begin);
    v.in("document", document);
    v.in("share", share);
    v.in("d_loss", d_loss);
    v.out("d_scores", d_scores);
    v.number("alpha", static_cast<double>(alpha));
  }
};

struct ExpertCountsArgs {
  View chosen;  // i32, contiguous
  View counts;  // [experts] i32, added to
  template <class V>
  void visit(V&& v) const {
    v.in("chosen", chosen);
    v.in("counts", counts);
    v.out("counts", counts);
  }
};

struct BiasUpdateArgs {
  View counts;  // [experts] i32
  View bias;    // [experts] f32, in place
  float gamma;
  template <class V>
  void visit(V&& v) const {
    v.in("counts", counts);
    v.in("bias", bias);
    v.out("bias", bias);
  }
};

DECLARE_CPU_KERNEL(BalanceLossArgs, balance_loss_forward)
DECLARE_CPU_KERNEL(BalanceLossBackwardArgs, balance_loss_backward)
DECLARE_CPU_KERNEL(ExpertCountsArgs, expert_counts)
DECLARE_CPU_KERNEL(BiasUpdateArgs, bias_update)
DECLARE_ASCEND_KERNEL(BalanceLossArgs, balance_loss_forward)
DECLARE_ASCEND_KERNEL(BalanceLossBackwardArgs, balance_loss_backward)
DECLARE_ASCEND_KERNEL(ExpertCountsArgs, expert_counts)
DECLARE_ASCEND_KERNEL(BiasUpdateArgs, bias_update)

}  // namespace ferry::ops
