// What the kernel of quantized_linear takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/code_panels.h"
#include "tensor/view.h"

namespace ferry::ops {

inline constexpr const char* kNoAscendCodes =
    "aclnnDynamicQuant and aclnnQuantMatmul are not part of software Ascend, so a kernel could not "
    "be tried; the model in bf16 runs there";

struct QuantizedLinearArgs {
  View x;        // [tokens, inputs] f32 or bf16; rows may be strided
  View panels;   // [matrices, panels, bytes of a panel]
  View scales;   // as code_scales_shape() has them
  View offsets;  // i32 [matrices + 1]; not given: one matrix, all rows
  View y;        // [tokens, outputs] f32 or bf16
  WeightCodes codes;
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("panels", panels);
    v.in("scales", scales);
    v.in("offsets", offsets);
    v.out("y", y);
    v.number("codes", static_cast<double>(codes));
  }
  CodePanels layout() const { return {codes, y.shape[1], x.shape[1]}; }
};

DECLARE_CPU_KERNEL(QuantizedLinearArgs, quantized_linear)
DECLARE_CPU_PLAN(QuantizedLinearArgs, quantized_linear_plan)

}  // namespace ferry::ops
