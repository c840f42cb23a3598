// Five kernels forward, one back, one for each update.
#include "ops/balance_loss/balance_loss_cuda.h"

#include "ops/balance_loss/balance_loss_kernels.h"
#include "ops/cuda/launch.h"

namespace ferry::ops::cuda {
namespace {

const Code& code() {
  static const Code code("balance_loss");
  return code;
}

}  // namespace

Plan balance_loss_plan(const BalanceLossArgs& a) {
  const int64_t documents = a.share.shape[0];
  return {.workspace_bytes =
              static_cast<size_t>(a.scores.shape[0] + a.share.count() + documents) * sizeof(float)};
}

void balance_loss_forward(const Plan&, const BalanceLossArgs& a, void* workspace, Stream& stream) {
  auto* const sums = static_cast<float*>(workspace);
  const int64_t tokens = a.scores.shape[0];
  const BalanceLossCuda args{.scores = a.scores.as<float>(),
                             .chosen = a.experts.as<int32_t>(),
                             .position = a.position.as<int32_t>(),
                             .begin = a.begin.as<int32_t>(),
                             .document = a.document.as<int32_t>(),
                             .share = a.share.as<float>(),
                             .loss = a.loss.as<float>(),
                             .sums = sums,
                             .means = sums + tokens,
                             .losses = sums + tokens + a.share.count(),
                             .tokens = tokens,
                             .experts = a.scores.shape[1],
                             .top_k = a.experts.shape[1],
                             .documents = a.share.shape[0],
                             .alpha = a.alpha};
  code().launch(stream, "find_documents", {}, {}, args);
  code().launch(stream, "token_sums", rows_grid(tokens), kRowsBlock, args);
  code().launch(stream, "document_shares", {blocks_of(a.share.count(), 128)}, {128}, args);
  code().launch(stream, "document_losses", rows_grid(args.documents), kRowsBlock, args);
  code().launch(stream, "total_balance_loss", {}, {}, args);
}

void balance_loss_backward(const Plan&, const BalanceLossBackwardArgs& a, void*, Stream& stream) {
  code().launch(stream,
                "balance_loss_gradient",
                rows_grid(a.scores.shape[0]),
                kRowsBlock,
                BalanceLossBackwardCuda{.scores = a.scores.as<float>(),
                                        .begin = a.begin.as<int32_t>(),
                                        .document = a.document.as<int32_t>(),
                                        .share = a.share.as<float>(),
                                        .d_loss = a.d_loss.as<float>(),
                                        .d_scores = a.d_scores.as<float>(),
                                        .tokens = a.scores.shape[0],
                                        .experts = a.scores.shape[1],
                                        .documents = a.share.shape[0],
                                        .alpha = a.alpha});
}

void expert_counts(const Plan&, const ExpertCountsArgs& a, void*, Stream& stream) {
  const int64_t experts = a.counts.shape[0];
  code().launch(
      stream,
      "expert_counts",
      {blocks_of(experts, 128)},
      {128},
      ExpertCountsCuda{a.chosen.as<int32_t>(), a.counts.as<int32_t>(), a.chosen.count(), experts});
}

void bias_update(const Plan&, const BiasUpdateArgs& a, void*, Stream& stream) {
  const int64_t experts = a.counts.shape[0];
  code().launch(stream,
                "bias_update",
                {blocks_of(experts, 128)},
                {128},
                BiasUpdateCuda{a.counts.as<int32_t>(), a.bias.as<float>(), experts, a.gamma});
}

}  // namespace ferry::ops::cuda
