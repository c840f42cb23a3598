#include "ops/add_bias/add_bias.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/add_bias/add_bias_kernels.h"
#include "ops/cast/cast.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(AddBiasArgs, add_bias)
DECLARE_CUDA_KERNEL(AddBiasBackwardArgs, add_bias_backward)

const KernelTable<AddBiasArgs> kForward{
    .op = "add_bias",
    .cpu = CPU_KERNEL(AddBiasArgs, add_bias),
    .cuda = CUDA_KERNEL(AddBiasArgs, add_bias),
    .ascend = ASCEND_KERNEL(AddBiasArgs, Branch::kComposed, add_bias),
};

const KernelTable<AddBiasBackwardArgs> kBackward{
    .op = "add_bias_backward",
    .cpu = CPU_KERNEL(AddBiasBackwardArgs, add_bias_backward),
    .cuda = CUDA_KERNEL(AddBiasBackwardArgs, add_bias_backward),
    .ascend = ASCEND_KERNEL(AddBiasBackwardArgs, Branch::kComposed, add_bias_backward),
};

Tensor add_bias(const Tensor& x, const Weight& bias, DType out) {
  const Tensor& b = bias.value;
  check(x.rank() == 2 && x.contiguous() && b.rank() == 1 && x.dim(1) == b.dim(0),
        "add_bias: x {}, {} {}",
        x.shape().str(),
        bias.name,
        b.shape().str());
  check(x.dtype() == DType::kF32 && b.dtype() == DType::kF32 &&
            (out == DType::kF32 || out == DType::kBF16),
        "add_bias: x {}, {} {}, y {}",
        to_string(x.dtype()),
        bias.name,
        to_string(b.dtype()),
        to_string(out));
  Tensor y = Tensor::empty(x.shape(), out, x.device());
  dispatch(kForward, AddBiasArgs{x.view(), b.view(), y.view()}, x.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "add_bias",
        {x, b},
        {y},
        [x = x.without_memory(), b = b.without_memory(), y = y.without_memory()](Grads& grads) {
          const Tensor d_y = grads.of(y);
          if (grads.wanted(x)) grads.add(x, cast(d_y, DType::kF32));
          if (!grads.wanted(b)) return;
          Tensor d_b = Tensor::empty(b.shape(), DType::kF32, d_y.device());
          dispatch(kBackward, AddBiasBackwardArgs{d_y.view(), d_b.view()}, d_y.device());
          grads.add(b, d_b);
        });
  return y;
}

}  // namespace ferry::ops
