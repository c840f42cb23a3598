// A thread for each element.
#include "ops/cuda/device_math.h"
#include "ops/swiglu/swiglu_cuda.h"

namespace ferry::ops {

template <typename T>
__device__ void forward(const SwigluCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    const float g = load(static_cast<const T*>(c.gate) + at[0]);
    store(static_cast<T*>(c.y) + at[2], g * sigmoid(g) * load(static_cast<const T*>(c.up) + at[1]));
  });
}

// With s = sigmoid(g):  silu'(g) = s + g s (1 - s).
template <typename T>
__device__ void backward(const SwigluBackwardCuda& c) {
  for_elements(c.runs, [&](const int64_t* at) {
    const float g = load(static_cast<const T*>(c.gate) + at[0]);
    const float d = load(static_cast<const T*>(c.d_y) + at[2]);
    const float s = sigmoid(g);
    const float silu = g * s;
    const float slope = __fmaf_rn(silu, 1.0f - s, s);
    store(static_cast<T*>(c.d_gate) + at[3], d * load(static_cast<const T*>(c.up) + at[1]) * slope);
    store(static_cast<T*>(c.d_up) + at[4], d * silu);
  });
}

extern "C" __global__ void swiglu_f32(const SwigluCuda c) { forward<float>(c); }
extern "C" __global__ void swiglu_bf16(const SwigluCuda c) { forward<bf16_t>(c); }
extern "C" __global__ void swiglu_backward_f32(const SwigluBackwardCuda c) { backward<float>(c); }
extern "C" __global__ void swiglu_backward_bf16(const SwigluBackwardCuda c) { backward<bf16_t>(c); }

}  // namespace ferry::ops
