// Elementwise.
#include "ops/swiglu/swiglu_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/swiglu/swiglu_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("swiglu");
  return code;
}

}  // namespace

void swiglu_forward(const Plan&, const SwigluArgs& a, void*, Stream& stream) {
  launch_elements(stream,
                  code(),
                  by_type(a.y.dtype, "swiglu_f32", "swiglu_bf16"),
                  SwigluCuda{a.gate.data, a.up.data, a.y.data, make_runs(a.gate, a.up, a.y)});
}

void swiglu_backward(const Plan&, const SwigluBackwardArgs& a, void*, Stream& stream) {
  launch_elements(stream,
                  code(),
                  by_type(a.d_y.dtype, "swiglu_backward_f32", "swiglu_backward_bf16"),
                  SwigluBackwardCuda{a.gate.data,
                                     a.up.data,
                                     a.d_y.data,
                                     a.d_gate.data,
                                     a.d_up.data,
                                     make_runs(a.gate, a.up, a.d_y, a.d_gate, a.d_up)});
}

}  // namespace ferry::ops::cuda
