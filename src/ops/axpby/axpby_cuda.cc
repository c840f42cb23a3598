// Elementwise.
#include "ops/axpby/axpby_cuda.h"

#include "ops/axpby/axpby_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {

void axpby(const Plan&, const AxpbyArgs& args, void*, Stream& stream) {
  static const Code code("axpby");
  const char* const kernel = is_bf16(args.x)
                                 ? by_type(args.y.dtype, "axpby_bf16_f32", "axpby_bf16_bf16")
                                 : by_type(args.y.dtype, "axpby_f32_f32", "axpby_f32_bf16");
  launch_elements(stream,
                  code,
                  kernel,
                  AxpbyCuda{args.x.data, args.y.data, args.a, args.b, make_runs(args.x, args.y)});
}

}  // namespace ferry::ops::cuda
