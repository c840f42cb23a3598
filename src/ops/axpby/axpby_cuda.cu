// y = a x + b y, a thread for each element. With b = 0 y is not read: it may be NaN.
#include "ops/axpby/axpby_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

template <typename X, typename Y>
__device__ void axpby(const AxpbyCuda& c) {
  const bool reads_y = c.b != 0;
  for_elements(c.runs, [&](const int64_t* at) {
    Y* const y = static_cast<Y*>(c.y) + at[1];
    const float old = reads_y ? c.b * load(y) : 0.0f;
    store(y, __fmaf_rn(c.a, load(static_cast<const X*>(c.x) + at[0]), old));
  });
}

extern "C" __global__ void axpby_f32_f32(const AxpbyCuda c) { axpby<float, float>(c); }
extern "C" __global__ void axpby_f32_bf16(const AxpbyCuda c) { axpby<float, bf16_t>(c); }
extern "C" __global__ void axpby_bf16_f32(const AxpbyCuda c) { axpby<bf16_t, float>(c); }
extern "C" __global__ void axpby_bf16_bf16(const AxpbyCuda c) { axpby<bf16_t, bf16_t>(c); }

}  // namespace ferry::ops
