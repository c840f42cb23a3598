// Checks, kernel table and gradient of scale.
#include "ops/scale/scale.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/scale/scale_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(ScaleArgs, scale)

const KernelTable<ScaleArgs> kScale{
    .op = "scale",
    .cpu = CPU_KERNEL(ScaleArgs, scale),
    .cuda = CUDA_KERNEL(ScaleArgs, scale),
    .ascend = ASCEND_KERNEL(ScaleArgs, Branch::kComposed, scale),
};

namespace {

/// x times the factor if there is one, else times the number; not recorded.
Tensor scaled(const Tensor& x, const Tensor& factor, float number) {
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  dispatch(kScale, ScaleArgs{x.view(), factor.view(), y.view(), number}, x.device());
  return y;
}

Tensor recorded(const char* op, const Tensor& x, const Tensor& factor, float number) {
  check(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16,
        "{}: x is {}",
        op,
        to_string(x.dtype()));
  Tensor y = scaled(x, factor, number);
  if (Tape* tape = Tape::current())
    tape->record(op,
                 {x},
                 {y},
                 [x = x.without_memory(), factor, number, y = y.without_memory()](Grads& grads) {
                   grads.add(x, scaled(grads.of(y), factor, number));
                 });
  return y;
}

}  // namespace

Tensor scale(const Tensor& x, float factor) { return recorded("scale", x, {}, factor); }

Tensor scale_by(const Tensor& x, const Tensor& factor) {
  check(factor.count() == 1 && factor.dtype() == DType::kF32,
        "scale_by: factor {} in {}",
        factor.shape().str(),
        to_string(factor.dtype()));
  check(Tape::current() == nullptr || !factor.needs_grad(),
        "scale_by: the factor wants a gradient, there is none");
  return recorded("scale_by", x, factor, 0);
}

}  // namespace ferry::ops
