// Scores, then the choice.
#include "ops/router/router_cuda.h"

#include "ops/cuda/launch.h"
#include "ops/router/router_kernels.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("router");
  return code;
}

RouterChoice choice(const RouterConfig& c) {
  return {.experts = c.experts,
          .top_k = c.top_k,
          .groups = c.groups,
          .groups_kept = c.groups_kept,
          .sigmoid = c.sigmoid,
          .top2_sum = c.group_score == GroupScore::kTop2Sum,
          .normalize = c.normalize,
          .scale = c.scale};
}

}  // namespace

Plan router_plan(const RouterArgs& a) {
  return {.workspace_bytes =
              static_cast<size_t>(a.logits.shape[0] * a.config.groups_kept) * sizeof(int32_t)};
}

void router_forward(const Plan&, const RouterArgs& a, void* workspace, Stream& stream) {
  if (a.logits.shape[0] == 0) return;
  const RouterCuda args{.logits = a.logits.as<float>(),
                        .bias = a.bias.as<float>(),
                        .given = a.given.as<int32_t>(),
                        .chosen = a.experts.as<int32_t>(),
                        .weights = a.weights.as<float>(),
                        .scores = a.scores.as<float>(),
                        .kept = static_cast<int32_t*>(workspace),
                        .tokens = a.logits.shape[0],
                        .logits_stride = a.logits.stride[0],
                        .config = choice(a.config)};
  code().launch(stream, "router_scores", rows_grid(args.tokens), kRowsBlock, args);
  code().launch(stream, "router_choice", {blocks_of(args.tokens, 64)}, {64}, args);
}

void router_backward(const Plan&, const RouterBackwardArgs& a, void*, Stream& stream) {
  if (a.scores.shape[0] == 0) return;
  const RouterBackwardCuda args{.scores = a.scores.as<float>(),
                                .experts = a.experts.as<int32_t>(),
                                .d_weights = a.d_weights.as<float>(),
                                .d_scores = a.d_scores.as<float>(),
                                .d_logits = a.d_logits.as<float>(),
                                .tokens = a.scores.shape[0],
                                .config = choice(a.config)};
  code().launch(stream, "router_gradient", rows_grid(args.tokens), kRowsBlock, args);
}

}  // namespace ferry::ops::cuda
