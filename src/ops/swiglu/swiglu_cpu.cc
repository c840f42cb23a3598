// Elementwise over runs of memory; arithmetic hides behind the loads, exp included.
#include "ops/cpu/loops.h"
#include "ops/swiglu/swiglu_kernels.h"

namespace ferry::ops::FERRY_TIER {

void swiglu_forward(const Plan&, const SwigluArgs& a, void*, Stream&) {
  with_type(a.y.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows rows({&a.gate, &a.up, &a.y});
    parallel_lanes(rows, [&](const int64_t* at, int64_t i, int n) {
      const F32x16 g = load_n(a.gate.as<T>() + at[0] + i, n);
      store_n(a.y.as<T>() + at[2] + i, g * sigmoid(g) * load_n(a.up.as<T>() + at[1] + i, n), n);
    });
  });
}

// With s = sigmoid(g):  silu'(g) = s + g s (1 - s).
void swiglu_backward(const Plan&, const SwigluBackwardArgs& a, void*, Stream&) {
  with_type(a.d_y.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows rows({&a.gate, &a.up, &a.d_y, &a.d_gate, &a.d_up});
    parallel_lanes(rows, [&](const int64_t* at, int64_t i, int n) {
      const F32x16 g = load_n(a.gate.as<T>() + at[0] + i, n);
      const F32x16 d = load_n(a.d_y.as<T>() + at[2] + i, n);
      const F32x16 s = sigmoid(g);
      const F32x16 silu = g * s;
      const F32x16 slope = fma(silu, splat(1.0f) - s, s);
      store_n(a.d_gate.as<T>() + at[3] + i, d * load_n(a.up.as<T>() + at[1] + i, n) * slope, n);
      store_n(a.d_up.as<T>() + at[4] + i, d * silu, n);
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
