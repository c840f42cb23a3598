#include "ops/rms_norm/rms_norm.h"

#include "autograd/tape.h"
#include "base/check.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"
#include "ops/rms_norm/rms_norm_kernels.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(RmsNormArgs, rms_norm_forward)
DECLARE_CUDA_KERNEL(RmsNormBackwardArgs, rms_norm_backward)

const KernelTable<RmsNormArgs> kForward{
    .op = "rms_norm",
    .cpu = CPU_KERNEL(RmsNormArgs, rms_norm_forward),
    .cuda = CUDA_KERNEL(RmsNormArgs, rms_norm_forward),
    .ascend = ASCEND_KERNEL(RmsNormArgs, Branch::kFused, rms_norm_forward),
};

const KernelTable<RmsNormBackwardArgs> kBackward{
    .op = "rms_norm_backward",
    .cpu = CPU_KERNEL(RmsNormBackwardArgs, rms_norm_backward),
    .cuda = CUDA_KERNEL(RmsNormBackwardArgs, rms_norm_backward),
    .ascend = ASCEND_KERNEL(RmsNormBackwardArgs, Branch::kFused, rms_norm_backward),
};

namespace {

struct Normalised {
  Tensor y, rstd;
};

Normalised normalised(const Tensor& x, const Tensor& w, float eps) {
  Normalised n{Tensor::empty(x.shape(), x.dtype(), x.device()),
               Tensor::empty({x.dim(0)}, DType::kF32, x.device())};
  dispatch(kForward, RmsNormArgs{x.view(), w.view(), n.y.view(), n.rstd.view(), eps}, x.device());
  return n;
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Weight& weight, float eps) {
  const Tensor& w = weight.value;
  check(x.rank() == 2 && w.rank() == 1 && x.dim(1) == w.dim(0),
        "rms_norm: x {}, {} {}",
        x.shape().str(),
        weight.name,
        w.shape().str());
  check(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16,
        "rms_norm: x is {}",
        to_string(x.dtype()));
  check(eps > 0, "rms_norm: eps {}", eps);
  auto [y, rstd] = normalised(x, w, eps);
  if (Tape* tape = Tape::current()) {
    tape->makes_again(y, [x = x.saved(), w, eps] { return normalised(x.restored(), w, eps).y; });
    const auto backward = [saved = x.saved(), w, y = y.without_memory(), rstd = rstd](
                              Grads& grads) {
      const Tensor input = saved.restored();
      Tensor d_x = Tensor::empty(input.shape(), input.dtype(), input.device());
      Tensor d_w;
      if (grads.wanted(w)) d_w = Tensor::empty(w.shape(), DType::kF32, input.device());
      dispatch(kBackward,
               RmsNormBackwardArgs{
                   input.view(), w.view(), rstd.view(), grads.of(y).view(), d_x.view(), d_w.view()},
               input.device());
      grads.add(saved, d_x);
      if (d_w.defined()) grads.add(w, d_w);
    };
    tape->record("rms_norm", {x, w}, {y}, backward);
  }
  return y;
}

}  // namespace ferry::ops
