// What the kernel of sum_squares takes.
#pragma once

#include "ops/kernel_table.h"
#include "tensor/view.h"

namespace ferry::ops {

inline constexpr int64_t kSquaresStep = 64;  // of devices that sum in float32

struct SumSquaresArgs {
  struct Traits {
    DType sum = DType::kF32;  // in which the kernel adds, and answers
  };
  View x;    // f32, contiguous
  View sum;  // [1] in the type of the kernel, or of the one that it judges: f32 or f64
  template <class V>
  void visit(V&& v) const {
    v.in("x", x);
    v.out("sum", sum);
  }
};

DECLARE_CPU_KERNEL(SumSquaresArgs, sum_squares)
DECLARE_CPU_PLAN(SumSquaresArgs, sum_squares_plan)
DECLARE_ASCEND_KERNEL(SumSquaresArgs, sum_squares)

}  // namespace ferry::ops
