// Checks, kernel table and gradient of swiglu.
#include "ops/swiglu/swiglu.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/swiglu/swiglu_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(SwigluArgs, swiglu_forward)
DECLARE_CUDA_KERNEL(SwigluBackwardArgs, swiglu_backward)

const KernelTable<SwigluArgs> kForward{
    .op = "swiglu",
    .cpu = CPU_KERNEL(SwigluArgs, swiglu_forward),
    .cuda = CUDA_KERNEL(SwigluArgs, swiglu_forward),
    .ascend = ASCEND_KERNEL(SwigluArgs, Branch::kFused, swiglu_forward),
};

const KernelTable<SwigluBackwardArgs> kBackward{
    .op = "swiglu_backward",
    .cpu = CPU_KERNEL(SwigluBackwardArgs, swiglu_backward),
    .cuda = CUDA_KERNEL(SwigluBackwardArgs, swiglu_backward),
    .ascend = ASCEND_KERNEL(SwigluBackwardArgs, Branch::kFused, swiglu_backward),
};

namespace {

Tensor forward(const Tensor& gate, const Tensor& up) {
  Tensor y = Tensor::empty(gate.shape(), gate.dtype(), gate.device());
  dispatch(kForward, SwigluArgs{gate.view(), up.view(), y.view()}, gate.device());
  return y;
}

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) {
  check(gate.shape() == up.shape(), "swiglu: gate {}, up {}", gate.shape().str(), up.shape().str());
  check(gate.dtype() == up.dtype() && (gate.dtype() == DType::kF32 || gate.dtype() == DType::kBF16),
        "swiglu: gate is {}, up {}",
        to_string(gate.dtype()),
        to_string(up.dtype()));
  Tensor y = forward(gate, up);
  if (Tape* tape = Tape::current()) {
    tape->makes_again(y, [gate, up] { return forward(gate, up); });
    tape->record("swiglu", {gate, up}, {y}, [gate, up, y = y.without_memory()](Grads& grads) {
      Tensor d_gate = Tensor::empty(gate.shape(), gate.dtype(), gate.device());
      Tensor d_up = Tensor::empty(up.shape(), up.dtype(), up.device());
      dispatch(kBackward,
               SwigluBackwardArgs{
                   gate.view(), up.view(), grads.of(y).view(), d_gate.view(), d_up.view()},
               gate.device());
      grads.add(gate, d_gate);
      grads.add(up, d_up);
    });
  }
  return y;
}

}  // namespace ferry::ops
