// y = a + b, a thread for each element.
#include "ops/add/add_cuda.h"
#include "ops/cuda/device_math.h"

namespace ferry::ops {

template <typename T>
__device__ void add(const AddCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    store(static_cast<T*>(c.y) + at[2],
          load(static_cast<const T*>(c.a) + at[0]) + load(static_cast<const T*>(c.b) + at[1]));
  });
}

extern "C" __global__ void add_f32(const AddCuda c) { add<float>(c); }
extern "C" __global__ void add_bf16(const AddCuda c) { add<bf16_t>(c); }

}  // namespace ferry::ops
