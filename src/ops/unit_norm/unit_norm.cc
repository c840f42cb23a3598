// Checks and kernel table of unit_norm.
#include "ops/unit_norm/unit_norm.h"

#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/unit_norm/unit_norm_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(UnitNormArgs, unit_norm)
DECLARE_CUDA_PLAN(UnitNormArgs, unit_norm_plan)

const KernelTable<UnitNormArgs> kUnitNorm{
    .op = "unit_norm",
    .cpu = CPU_KERNEL(UnitNormArgs, unit_norm, CPU_FUNCTION(unit_norm_plan)),
    .cuda = CUDA_KERNEL(UnitNormArgs, unit_norm, unit_norm_plan),
    .ascend = ASCEND_KERNEL(UnitNormArgs, Branch::kComposed, unit_norm),
};

Tensor unit_norm(const Tensor& x) {
  check((x.rank() == 2 || x.rank() == 3) && x.dtype() == DType::kF32 && x.contiguous(),
        "unit_norm: {} {}",
        to_string(x.dtype()),
        x.shape().str());
  const Tensor y = Tensor::empty(x.shape(), DType::kF32, x.device());
  const Shape stack = {x.rank() == 3 ? x.dim(0) : 1, x.dim(-2), x.dim(-1)};
  dispatch(kUnitNorm, UnitNormArgs{x.reshape(stack).view(), y.reshape(stack).view()}, x.device());
  return y;
}

}  // namespace ferry::ops
