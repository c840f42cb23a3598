// From one type to another, a thread for each element.
#include "ops/cast/cast_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

template <typename X, typename Y>
__device__ void cast(const CastCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    store(static_cast<Y*>(c.y) + at[1], load(static_cast<const X*>(c.x) + at[0]));
  });
}

extern "C" __global__ void cast_f32_f32(const CastCuda c) { cast<float, float>(c); }
extern "C" __global__ void cast_f32_bf16(const CastCuda c) { cast<float, bf16_t>(c); }
extern "C" __global__ void cast_bf16_f32(const CastCuda c) { cast<bf16_t, float>(c); }
extern "C" __global__ void cast_bf16_bf16(const CastCuda c) { cast<bf16_t, bf16_t>(c); }

}  // namespace ferry::ops
