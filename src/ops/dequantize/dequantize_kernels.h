// What the kernel of dequantize takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/code_panels.h"
#include "tensor/view.h"

namespace ferry::ops {

struct DequantizeArgs {
  View codes;    // [batch, rows, columns], a byte each, contiguous
  View numbers;  // [256] f32: what each code stands for
  View scales;   // [batch, rows of blocks, columns of blocks] f32, contiguous
  View y;        // [batch, rows, columns] f32 or bf16, contiguous
  int64_t block_rows, block_columns;
  template <class V>
  void visit(V&& v) const {
    v.in("codes", codes);
    v.in("numbers", numbers);
    v.in("scales", scales);
    v.out("y", y);
    v.number("block_rows", static_cast<double>(block_rows));
    v.number("block_columns", static_cast<double>(block_columns));
  }
};

struct DequantizePanelsArgs {
  View panels;  // [matrices, panels, bytes of a panel]
  View scales;  // as code_scales_shape() has them
  View y;       // [matrices, rows, columns] f32 or bf16, contiguous
  WeightCodes codes;
  template <class V>
  void visit(V&& v) const {
    v.in("panels", panels);
    v.in("scales", scales);
    v.out("y", y);
    v.number("codes", static_cast<double>(codes));
  }
};

DECLARE_CPU_KERNEL(DequantizeArgs, dequantize)
DECLARE_CPU_KERNEL(DequantizePanelsArgs, dequantize_panels)
DECLARE_ASCEND_KERNEL(DequantizeArgs, dequantize)

}  // namespace ferry::ops
