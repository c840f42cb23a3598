// The plan, and rows on their way to experts and back.
#include "ops/moe_permute/moe_permute_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/moe_permute/moe_permute_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("moe_permute");
  return code;
}

}  // namespace

void plan_experts(const Plan&, const PlanExpertsArgs& a, void*, Stream& stream) {
  const int64_t experts = a.offsets.shape[0] - 1;
  check(experts <= kPlanThreads, "plan_experts: {} experts on CUDA", experts);
  code().launch(stream,
                "plan_experts",
                {},
                {kPlanThreads},
                PlanExpertsCuda{.chosen = a.chosen.as<int32_t>(),
                                .offsets = a.offsets.as<int32_t>(),
                                .row_of_slot = a.row_of_slot.as<int32_t>(),
                                .token_of_row = a.token_of_row.as<int32_t>(),
                                .slots = a.chosen.count(),
                                .top_k = a.chosen.shape[1],
                                .experts = experts});
}

void permute(const Plan&, const PermuteArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  code().launch(stream,
                by_type(a.y.dtype, "permute_f32", "permute_bf16"),
                {blocks_of(a.y.count(), 256)},
                {256},
                PermuteCuda{.x = a.x.data,
                            .token_of_row = a.token_of_row.as<int32_t>(),
                            .y = a.y.data,
                            .rows = a.y.shape[0],
                            .hidden = a.y.shape[1],
                            .x_stride = a.x.stride[0]});
}

void combine(const Plan&, const CombineArgs& a, void*, Stream& stream) {
  if (a.y.count() == 0) return;
  code().launch(stream,
                by_type(a.y.dtype, "combine_f32", "combine_bf16"),
                {blocks_of(a.y.count(), 256)},
                {256},
                CombineCuda{.x = a.x.data,
                            .weights = a.weights.as<float>(),
                            .row_of_slot = a.row_of_slot.as<int32_t>(),
                            .y = a.y.data,
                            .tokens = a.y.shape[0],
                            .hidden = a.y.shape[1],
                            .top_k = a.row_of_slot.shape[1],
                            .x_stride = a.x.stride[0]});
}

void combine_backward(const Plan&, const CombineBackwardArgs& a, void*, Stream& stream) {
  const int64_t slots = a.row_of_slot.count();
  if (slots == 0) return;
  const CombineBackwardCuda args{.x = a.x.data,
                                 .weights = a.weights.as<float>(),
                                 .row_of_slot = a.row_of_slot.as<int32_t>(),
                                 .used = a.offsets.as<int32_t>() + a.offsets.shape[0] - 1,
                                 .d_y = a.d_y.data,
                                 .d_x = a.d_x.data,
                                 .d_weights = a.d_weights.as<float>(),
                                 .slots = slots,
                                 .rows = a.d_x.shape[0],
                                 .hidden = a.d_y.shape[1],
                                 .top_k = a.row_of_slot.shape[1],
                                 .x_stride = a.x.stride[0],
                                 .d_y_stride = a.d_y.stride[0]};
  code().launch(stream,
                by_type(a.d_y.dtype, "combine_backward_f32", "combine_backward_bf16"),
                rows_grid(slots),
                kRowsBlock,
                args);
  if (a.d_x.count() > 0)
    code().launch(stream,
                  by_type(a.d_y.dtype, "unused_rows_f32", "unused_rows_bf16"),
                  {blocks_of(a.d_x.count(), 256)},
                  {256},
                  args);
}

}  // namespace ferry::ops::cuda
