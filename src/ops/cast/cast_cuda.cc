// Elementwise.
#include "ops/cast/cast_cuda.h"

#include "ops/cast/cast_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {

void cast(const Plan&, const CastArgs& a, void*, Stream& stream) {
  static const Code code("cast");
  const char* const kernel = is_bf16(a.x) ? by_type(a.y.dtype, "cast_bf16_f32", "cast_bf16_bf16")
                                          : by_type(a.y.dtype, "cast_f32_f32", "cast_f32_bf16");
  launch_elements(stream, code, kernel, CastCuda{a.x.data, a.y.data, make_runs(a.x, a.y)});
}

}  // namespace ferry::ops::cuda
