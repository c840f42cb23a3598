// What the kernels of router take.
#pragma once

#include "ops/kernel_table.h"
#include "ops/router/router_config.h"
#include "tensor/view.h"

namespace ferry::ops {

struct RouterArgs {
  View logits;   // [tokens, experts] f32; rows may be strided
  View bias;     // [experts] f32; not given: no bias
  View given;    // [tokens, top_k] i32: replay; not given: choose
  View experts;  // [tokens, top_k] i32; not given in a replay
  View weights;  // [tokens, top_k] f32
  View scores;   // [tokens, experts] f32
  RouterConfig config;
  template <class V>
  void visit(V&& v) const {
    v.in("logits", logits);
    v.in("bias", bias);
    v.in("given", given);
    v.out("experts", experts);
    v.out("weights", weights);
    v.out("scores", scores);
    v.number("sigmoid", config.sigmoid ? 1 : 0);
    v.number("groups", config.groups);
    v.number("groups_kept", config.groups_kept);
    v.number("top2_sum", config.group_score == GroupScore::kTop2Sum ? 1 : 0);
    v.number("normalize", config.normalize ? 1 : 0);
    v.number("scale", static_cast<double>(config.scale));
  }
};

struct RouterBackwardArgs {
  View scores, experts;
  View d_weights;  // [tokens, top_k] f32; not given: zero
  View d_scores;   // [tokens, experts] f32; not given: zero
  View d_logits;   // [tokens, experts] f32
  RouterConfig config;
  template <class V>
  void visit(V&& v) const {
    v.in("scores", scores);
    v.in("experts", experts);
    v.in("d_weights", d_weights);
    v.in("d_scores", d_scores);
    v.out("d_logits", d_logits);
    v.number("sigmoid", config.sigmoid ? 1 : 0);
    v.number("normalize", config.normalize ? 1 : 0);
    v.number("scale", static_cast<double>(config.scale));
  }
};

DECLARE_CPU_KERNEL(RouterArgs, router_forward)
DECLARE_CPU_KERNEL(RouterBackwardArgs, router_backward)
DECLARE_ASCEND_KERNEL(RouterArgs, router_forward)
DECLARE_ASCEND_KERNEL(RouterBackwardArgs, router_backward)

}  // namespace ferry::ops
