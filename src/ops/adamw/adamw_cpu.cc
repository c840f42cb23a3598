// One pass over memory: 16 bytes in, 12 bytes out for each parameter.
#include "ops/adamw/adamw_kernels.h"
#include "ops/cpu/loops.h"

namespace ferry::ops::FERRY_TIER {

void adamw(const Plan&, const AdamWArgs& a, void*, Stream&) {
  const F32x16 decay = splat(a.decay), beta1 = splat(a.beta1), rest1 = splat(a.one_minus_beta1);
  const F32x16 beta2 = splat(a.beta2), rest2 = splat(a.one_minus_beta2),
               minus_step = splat(0.0f - a.step_size);
  const F32x16 root = splat(a.root), eps = splat(a.eps), grad_scale = splat(a.grad_scale);
  parallel_lanes(Rows({&a.p, &a.m, &a.v, &a.grad}), [&](const int64_t* at, int64_t i, int n) {
    float* p = a.p.as<float>() + at[0] + i;
    float* m = a.m.as<float>() + at[1] + i;
    float* v = a.v.as<float>() + at[2] + i;
    const F32x16 g = load_n(a.grad.as<float>() + at[3] + i, n) * grad_scale;
    const F32x16 first = fma(rest1, g, beta1 * load_n(m, n));
    const F32x16 second = fma(rest2 * g, g, beta2 * load_n(v, n));
    const F32x16 denominator = sqrt(second) / root + eps;
    store_n(m, first, n);
    store_n(v, second, n);
    store_n(p, fma(minus_step, first / denominator, load_n(p, n) * decay), n);
  });
}

}  // namespace ferry::ops::FERRY_TIER
