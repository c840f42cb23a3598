#include "ops/add/add.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/add/add_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(AddArgs, add)

const KernelTable<AddArgs> kAdd{
    .op = "add",
    .cpu = CPU_KERNEL(AddArgs, add),
    .cuda = CUDA_KERNEL(AddArgs, add),
    .ascend = ASCEND_KERNEL(AddArgs, Branch::kFused, add),
};

namespace {

void check_alike(const char* op, const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "{}: {} and {}", op, a.shape().str(), b.shape().str());
  check(a.dtype() == b.dtype() && (a.dtype() == DType::kF32 || a.dtype() == DType::kBF16),
        "{}: {} and {}",
        op,
        to_string(a.dtype()),
        to_string(b.dtype()));
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  check_alike("add", a, b);
  Tensor y = Tensor::empty(a.shape(), a.dtype(), a.device());
  dispatch(kAdd, AddArgs{a.view(), b.view(), y.view()}, a.device());
  if (Tape* tape = Tape::current())
    tape->record(
        "add",
        {a, b},
        {y},
        [a = a.without_memory(), b = b.without_memory(), y = y.without_memory()](Grads& grads) {
          grads.add(a, grads.of(y));
          grads.add(b, grads.of(y));
        });
  return y;
}

void accumulate(const Tensor& into, const Tensor& from) {
  check_alike("accumulate", into, from);
  dispatch(kAdd, AddArgs{into.view(), from.view(), into.view()}, into.device());
}

}  // namespace ferry::ops
