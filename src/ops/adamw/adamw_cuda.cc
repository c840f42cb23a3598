// Elementwise.
#include "ops/adamw/adamw_cuda.h"

#include "ops/adamw/adamw_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {

void adamw(const Plan&, const AdamWArgs& a, void*, Stream& stream) {
  static const Code code("adamw");
  launch_elements(stream,
                  code,
                  "adamw_f32",
                  AdamWCuda{.p = a.p.as<float>(),
                            .m = a.m.as<float>(),
                            .v = a.v.as<float>(),
                            .grad = a.grad.as<float>(),
                            .decay = a.decay,
                            .beta1 = a.beta1,
                            .rest1 = a.one_minus_beta1,
                            .beta2 = a.beta2,
                            .rest2 = a.one_minus_beta2,
                            .step_size = a.step_size,
                            .root = a.root,
                            .eps = a.eps,
                            .grad_scale = a.grad_scale,
                            .runs = make_runs(a.p, a.m, a.v, a.grad)});
}

}  // namespace ferry::ops::cuda
