// Elementwise.
#include "ops/scale/scale_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/scale/scale_kernels.h"

namespace ferry::ops::cuda {

void scale(const Plan&, const ScaleArgs& a, void*, Stream& stream) {
  static const Code code("scale");
  launch_elements(
      stream,
      code,
      by_type(a.x.dtype, "scale_f32", "scale_bf16"),
      ScaleCuda{a.x.data, a.factor.as<float>(), a.y.data, a.number, make_runs(a.x, a.y)});
}

}  // namespace ferry::ops::cuda
