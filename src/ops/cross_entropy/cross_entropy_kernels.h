// What the kernels of cross_entropy take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/code_panels.h"
#include "tensor/view.h"

namespace ferry::ops {

struct CrossEntropyArgs {
  View hidden;  // [tokens, inputs] f32 or bf16; rows may be strided
  View head;    // [vocab, inputs] f32 or bf16; or panels of codes, as quantized_linear has them
  View labels;  // i32 [tokens]
  View token_losses;  // f32 [tokens]
  View loss;          // f32 [1]
  View d_hidden;      // [tokens, inputs], hidden's type; not given if not wanted
  View d_head;        // [vocab, inputs] f32, overwritten; not given if not wanted
  float scale;
  int64_t chunk;  // tokens whose logits exist at a time; even
  int64_t vocab;
  View head_scales = {};        // of codes
  View weights = {};            // f32 [tokens]; not given: each 1
  WeightCodes head_codes = {};  // if there are scales
  template <class V>
  void visit(V&& v) const {
    v.in("hidden", hidden);
    v.in("head", head);
    v.in("head_scales", head_scales);
    v.in("labels", labels);
    v.in("weights", weights);
    v.out("token_losses", token_losses);
    v.out("loss", loss);
    v.out("d_hidden", d_hidden);
    v.out("d_head", d_head);
    v.number("scale", static_cast<double>(scale));
    v.number("vocab", static_cast<double>(vocab));
    v.number("head_codes", static_cast<double>(head_codes));
  }
  CodePanels head_layout() const { return {head_codes, vocab, hidden.shape[1]}; }
};

struct CrossEntropyBackwardArgs {
  View d_loss;    // f32 [1]
  View gradient;  // contiguous f32 or bf16, multiplied by d_loss in place
  template <class V>
  void visit(V&& v) const {
    v.in("d_loss", d_loss);
    v.in("gradient", gradient);
    v.out("gradient", gradient);
  }
};

DECLARE_CPU_KERNEL(CrossEntropyArgs, cross_entropy)
DECLARE_CPU_PLAN(CrossEntropyArgs, cross_entropy_plan)
DECLARE_CPU_KERNEL(CrossEntropyBackwardArgs, cross_entropy_backward)
DECLARE_ASCEND_KERNEL(CrossEntropyArgs, cross_entropy)
DECLARE_ASCEND_KERNEL(CrossEntropyBackwardArgs, cross_entropy_backward)

/// Floats between rows of logits: whole vectors, and not a power of two, so that a strip of rows
/// does not fall into one cache set.
constexpr int64_t logits_stride(int64_t vocab) { return (vocab + 15) / 16 * 16 + 16; }

}  // namespace ferry::ops
