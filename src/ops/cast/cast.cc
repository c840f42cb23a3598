// Checks, kernel table and gradient of cast.
#include "ops/cast/cast.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cast/cast_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(CastArgs, cast)

const KernelTable<CastArgs> kCast{
    .op = "cast",
    .cpu = CPU_KERNEL(CastArgs, cast),
    .cuda = CUDA_KERNEL(CastArgs, cast),
    .ascend = ASCEND_KERNEL(CastArgs, Branch::kFused, cast),
};

Tensor cast(const Tensor& x, DType to) {
  const auto known = [](DType t) { return t == DType::kF32 || t == DType::kBF16; };
  check(known(x.dtype()) && known(to), "cast: {} to {}", to_string(x.dtype()), to_string(to));
  if (x.dtype() == to) return x;
  Tensor y = Tensor::empty(x.shape(), to, x.device());
  dispatch(kCast, CastArgs{x.view(), y.view()}, x.device());
  if (Tape* tape =
          Tape::current())  // recording is paused during playback: the cast back is not recorded
    tape->record("cast", {x}, {y}, [x = x.without_memory(), y = y.without_memory()](Grads& grads) {
      grads.add(x, cast(grads.of(y), x.dtype()));
    });
  return y;
}

}  // namespace ferry::ops
