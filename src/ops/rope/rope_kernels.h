// What the kernel of rope takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

struct RopeArgs {
  View x;         // [T, H, D] f32 or bf16, may be strided
  View cos, sin;  // [positions, dim / 2] f32
  View position;  // [T] i32
  View y;         // [T, H, D], x's type, contiguous
  int64_t begin;  // the first rotated column
  bool interleaved;
  bool inverse;  // the gradient
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.in("cos", cos);
    v.in("sin", sin);
    v.in("position", position);
    v.out("y", y);
    v.number("begin", static_cast<double>(begin));
    v.number("interleaved", interleaved ? 1 : 0);
  }
};

DECLARE_CPU_KERNEL(RopeArgs, rope)
DECLARE_ASCEND_KERNEL(RopeArgs, rope)

}  // namespace ferry::ops
