// Elementwise.
#include "ops/add/add_cuda.h"

#include "ops/add/add_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {

void add(const Plan&, const AddArgs& a, void*, Stream& stream) {
  static const Code code("add");
  launch_elements(stream,
                  code,
                  by_type(a.y.dtype, "add_f32", "add_bf16"),
                  AddCuda{a.a.data, a.b.data, a.y.data, make_runs(a.a, a.b, a.y)});
}

}  // namespace ferry::ops::cuda
