// A thread for each element, rows (a head of a token each) above each other.
#include "ops/rope/rope_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/rope/rope_kernels.h"

namespace ferry::ops::cuda {

void rope(const Plan&, const RopeArgs& a, void*, Stream& stream) {
  static const Code code("rope");
  if (a.x.count() == 0) return;
  const RopeCuda args{.x = a.x.data,
                      .cos = a.cos.as<float>(),
                      .sin = a.sin.as<float>(),
                      .position = a.position.as<int32_t>(),
                      .y = a.y.data,
                      .rows = a.x.shape[0] * a.x.shape[1],
                      .heads = a.x.shape[1],
                      .depth = a.x.shape[2],
                      .pairs = a.cos.shape[1],
                      .begin = a.begin,
                      .x_stride = {a.x.stride[0], a.x.stride[1]},
                      .y_stride = {a.y.stride[0], a.y.stride[1]},
                      .interleaved = a.interleaved,
                      .inverse = a.inverse};
  const RunsGrid size(Runs<1>{.length = args.depth, .rows = static_cast<int32_t>(args.rows)});
  code.launch(stream, by_type(a.x.dtype, "rope_f32", "rope_bf16"), size.grid, size.block, args);
}

}  // namespace ferry::ops::cuda
