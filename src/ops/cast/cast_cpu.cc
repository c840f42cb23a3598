// Elementwise over runs of memory.
#include "ops/cast/cast_kernels.h"
#include "ops/cpu/loops.h"

namespace ferry::ops::FERRY_TIER {

void cast(const Plan&, const CastArgs& a, void*, Stream&) {
  with_type(a.x.dtype, [&](auto x_type) {
    with_type(a.y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      parallel_lanes(Rows({&a.x, &a.y}), [&](const int64_t* at, int64_t i, int n) {
        store_n(a.y.as<Y>() + at[1] + i, load_n(a.x.as<X>() + at[0] + i, n), n);
      });
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
