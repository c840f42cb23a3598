// Elementwise over runs of memory.
#include "ops/cpu/loops.h"
#include "ops/scale/scale_kernels.h"

namespace ferry::ops::FERRY_TIER {

void scale(const Plan&, const ScaleArgs& a, void*, Stream&) {
  with_type(a.x.dtype, [&](auto type) {
    using T = decltype(type);
    const F32x16 factor = splat(a.factor.given() ? *a.factor.as<float>() : a.number);
    parallel_lanes(Rows({&a.x, &a.y}), [&](const int64_t* at, int64_t i, int n) {
      store_n(a.y.as<T>() + at[1] + i, load_n(a.x.as<T>() + at[0] + i, n) * factor, n);
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
