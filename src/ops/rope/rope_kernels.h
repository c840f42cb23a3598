// What the kernels of rope take.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct RopeArgs {
  View x;              // [tokens, heads, width] or [tokens, width], f32 or bf16; may be strided
  View cosine, sine;   // [positions, dim / 2] f32
  View position;       // [tokens] i32
  View y;              // x's shape, contiguous; may be strided for the gradient
  int64_t begin;       // first rotated column
  bool interleaved;    // pairs (2i, 2i + 1); otherwise (i, i + dim / 2)
  bool inverse;        // rotates back: the gradient
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("cosine", cosine);
    v.in("sine", sine);
    v.in("position", position);
    v.out("y", y);
  }
};

DECLARE_CPU_KERNEL(RopeArgs, rope)

}  // namespace ferry::ops
