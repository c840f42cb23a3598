// A thread for each parameter: 16 bytes in, 12 bytes out.
#include "ops/adamw/adamw_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

extern "C" __global__ void adamw_f32(const AdamWCuda c) {
  const float minus_step = 0.0f - c.step_size;
  for_elements(c.runs, [&](const int64_t* at) {
    float *const p = c.p + at[0], *const m = c.m + at[1], *const v = c.v + at[2];
    const float g = c.grad[at[3]] * c.grad_scale;
    const float first = __fmaf_rn(c.rest1, g, c.beta1 * *m);
    const float second = __fmaf_rn(c.rest2 * g, g, c.beta2 * *v);
    const float denominator = sqrtf(second) / c.root + c.eps;
    *m = first;
    *v = second;
    *p = __fmaf_rn(minus_step, first / denominator, *p * c.decay);
  });
}

}  // namespace ferry::ops
