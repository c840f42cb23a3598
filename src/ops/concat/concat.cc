#include "ops/concat/concat.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/concat/concat_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(ConcatArgs, concat)

const KernelTable<ConcatArgs> kConcat{
    .op = "concat",
    .cpu = CPU_KERNEL(ConcatArgs, concat),
    .cuda = CUDA_KERNEL(ConcatArgs, concat),
    .ascend = ASCEND_KERNEL(ConcatArgs, Branch::kFused, concat),
};

Tensor concat(const Tensor& a, const Tensor& b) {
  check(a.rank() == b.rank() && (a.rank() == 2 || a.rank() == 3),
        "concat: {} and {}",
        a.shape().str(),
        b.shape().str());
  for (int d = 0; d + 1 < a.rank(); ++d)
    check(a.dim(d) == b.dim(d), "concat: {} and {}", a.shape().str(), b.shape().str());
  check(a.dtype() == b.dtype() && (a.dtype() == DType::kF32 || a.dtype() == DType::kBF16),
        "concat: {} and {}",
        to_string(a.dtype()),
        to_string(b.dtype()));
  Shape shape = a.shape();
  shape[a.rank() - 1] = a.dim(-1) + b.dim(-1);
  Tensor y = Tensor::empty(shape, a.dtype(), a.device());
  dispatch(kConcat, ConcatArgs{a.view(), b.view(), y.view()}, a.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "concat",
        {a, b},
        {y},
        [a = a.without_memory(), b = b.without_memory(), y = y.without_memory()](Grads& grads) {
          const Tensor d_y = grads.of(y);
          grads.add(a, d_y.slice(-1, 0, a.dim(-1)));
          grads.add(b, d_y.slice(-1, a.dim(-1), y.dim(-1)));
        });
  return y;
}

}  // namespace ferry::ops
