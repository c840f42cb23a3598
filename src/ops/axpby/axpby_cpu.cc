// Elementwise over runs of memory.
#include "ops/axpby/axpby_kernels.h"
#include "ops/cpu/loops.h"

namespace ferry::ops::FERRY_TIER {

void axpby(const Plan&, const AxpbyArgs& args, void*, Stream&) {
  with_type(args.x.dtype, [&](auto x_type) {
    with_type(args.y.dtype, [&](auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      const F32x16 a = splat(args.a), b = splat(args.b);
      const bool reads_y = args.b != 0;
      parallel_lanes(Rows({&args.x, &args.y}), [&](const int64_t* at, int64_t i, int n) {
        Y* y = args.y.as<Y>() + at[1] + i;
        const F32x16 old = reads_y ? b * load_n(y, n) : splat(0);
        store_n(y, fma(a, load_n(args.x.as<X>() + at[0] + i, n), old), n);
      });
    });
  });
}

}  // namespace ferry::ops::FERRY_TIER
