// y = x * factor, a thread for each element.
#include "ops/cuda/device_math.h"
#include "ops/scale/scale_cuda.h"

namespace ferry::ops {

template <typename T>
__device__ void scale(const ScaleCuda& c) {
  const float factor = c.factor != nullptr ? *c.factor : c.number;
  for_elements(c.runs, [&](const int64_t* at) {
    store(static_cast<T*>(c.y) + at[1], load(static_cast<const T*>(c.x) + at[0]) * factor);
  });
}

extern "C" __global__ void scale_f32(const ScaleCuda c) { scale<float>(c); }
extern "C" __global__ void scale_bf16(const ScaleCuda c) { scale<bf16_t>(c); }

}  // namespace ferry::ops
