// Three kernels; the blocks' sums lie in the workspace.
#include "ops/unit_norm/unit_norm_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/unit_norm/unit_norm_kernels.h"

namespace ferry::ops::cuda {
namespace {

int64_t elements(const UnitNormArgs& a) { return a.x.shape[1] * a.x.shape[2]; }
int64_t blocks_in(const UnitNormArgs& a) {
  return std::max<int64_t>(blocks_of(elements(a), 4096), 1);
}

}  // namespace

Plan unit_norm_plan(const UnitNormArgs& a) {
  return {.workspace_bytes = 2 * static_cast<size_t>(a.x.shape[0] * blocks_in(a)) * sizeof(double)};
}

void unit_norm(const Plan&, const UnitNormArgs& a, void* workspace, Stream& stream) {
  static const Code code("unit_norm");
  static_assert(kUnitNormLeast == 1e-20, "the device's code has this number");
  if (a.x.count() == 0) return;
  const int64_t batch = a.x.shape[0], blocks = blocks_in(a);
  auto* const sums = static_cast<double*>(workspace);
  const UnitNormCuda args{.x = a.x.as<float>(),
                          .y = a.y.as<float>(),
                          .sums = sums,
                          .other = sums + batch * blocks,
                          .batch = batch,
                          .elements = elements(a),
                          .blocks = blocks};
  code.launch(stream, "unit_norm_squares", rows_grid(batch * blocks), kRowsBlock, args);
  code.launch(stream, "unit_norm_factor", {blocks_of(batch, 1)}, {256}, args);
  code.launch(stream, "unit_norm_scale", {blocks_of(a.x.count(), 256)}, {256}, args);
}

}  // namespace ferry::ops::cuda
