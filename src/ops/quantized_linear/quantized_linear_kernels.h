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
  View panels;   // [matrices, panels, bytes of a panel]: I8 holds int8 codes, U8 int4
  View scales;   // [matrices, panels, groups, 16]: int8 f32, int4 bf16
  View offsets;  // i32 [matrices + 1]; not given: one matrix, all rows
  View y;        // [tokens, outputs] f32 or bf16
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("panels", panels);
    v.in("scales", scales);
    v.in("offsets", offsets);
    v.out("y", y);
  }
  CodePanels layout() const { return {panels.dtype == DType::kI8 ? 8 : 4, y.shape[1], x.shape[1]}; }
};

DECLARE_CPU_KERNEL(QuantizedLinearArgs, quantized_linear)
DECLARE_CPU_PLAN(QuantizedLinearArgs, quantized_linear_plan)

}  // namespace ferry::ops
