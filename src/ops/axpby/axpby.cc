// Checks and kernel table of axpby.
#include "ops/axpby/axpby.h"

#include "base/check.h"
#include "ops/axpby/axpby_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(AxpbyArgs, axpby)

const KernelTable<AxpbyArgs> kAxpby{
    .op = "axpby",
    .cpu = CPU_KERNEL(AxpbyArgs, axpby),
    .cuda = CUDA_KERNEL(AxpbyArgs, axpby),
    .ascend = ASCEND_KERNEL(AxpbyArgs, Branch::kComposed, axpby),
};

void axpby(float a, const Tensor& x, float b, const Tensor& y) {
  const auto known = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  check(x.shape() == y.shape() && known(x.dtype()) && known(y.dtype()),
        "axpby: x {} in {}, y {} in {}",
        x.shape().str(),
        to_string(x.dtype()),
        y.shape().str(),
        to_string(y.dtype()));
  dispatch(kAxpby, AxpbyArgs{x.view(), y.view(), a, b}, y.device());
}

}  // namespace ferry::ops
