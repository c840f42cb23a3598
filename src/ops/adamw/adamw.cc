// Checks, scalars and kernel table of adamw.
#include "ops/adamw/adamw.h"

#include <cmath>

#include "base/check.h"
#include "base/math.h"
#include "ops/adamw/adamw_kernels.h"
#include "ops/cuda/kernel.h"
#include "ops/dispatch.h"

namespace ferry::ops {

DECLARE_CUDA_KERNEL(AdamWArgs, adamw)

const KernelTable<AdamWArgs> kAdamW{
    .op = "adamw",
    .cpu = CPU_KERNEL(AdamWArgs, adamw),
    .cuda = CUDA_KERNEL(AdamWArgs, adamw),
    .ascend = ASCEND_KERNEL(AdamWArgs, Branch::kComposed, adamw),
};

void adamw_update(Weight& w,
                  const Tensor& m,
                  const Tensor& v,
                  const Tensor& grad,
                  const AdamW& o,
                  float grad_scale) {
  const Tensor& p = w.value;
  for (const Tensor* t : {&p, &m, &v, &grad})
    check(t->shape() == p.shape() && t->dtype() == DType::kF32,
          "adamw: {} {}, a part {} in {}",
          w.name,
          p.shape().str(),
          t->shape().str(),
          to_string(t->dtype()));
  check(o.step >= 1, "adamw: step {}", o.step);
  const auto step = static_cast<double>(o.step);
  AdamWArgs args{.p = p.view(), .m = m.view(), .v = v.view(), .grad = grad.view()};
  args.decay = static_cast<float>(1 - o.lr * o.weight_decay);
  args.beta1 = static_cast<float>(o.beta1);
  args.one_minus_beta1 = static_cast<float>(1 - o.beta1);
  args.beta2 = static_cast<float>(o.beta2);
  args.one_minus_beta2 = static_cast<float>(1 - o.beta2);
  args.step_size = static_cast<float>(o.lr / (1 - math::pow(o.beta1, step)));
  args.root = static_cast<float>(std::sqrt(1 - math::pow(o.beta2, step)));
  args.eps = static_cast<float>(o.eps);
  args.grad_scale = grad_scale;
  dispatch(kAdamW, args, p.device());
  w.changed();
}

}  // namespace ferry::ops
