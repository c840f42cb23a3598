// Which experts a token goes to, and with which weights.
#pragma once

#include "ops/router/router_config.h"
#include "tensor/tensor.h"

namespace ferry::ops {

struct Routing {
  Tensor experts;  // i32 [tokens, top_k], by descending biased score; ties to the lower expert
  Tensor weights;  // f32 [tokens, top_k], of those experts
  Tensor scores;   // f32 [tokens, experts], unbiased: what the balance loss reads
};

/// The gate of DeepSeekMoE. scores = sigmoid or softmax of the logits; experts = the top_k of
/// scores + bias inside the best groups; weights = scores of the experts, without bias,
/// / (their sum + 1e-20) if normalize, * scale.
///
/// Shapes    logits [tokens, experts], rows may be strided; bias [experts] or undefined;
///           given_experts [tokens, top_k] or undefined: these experts instead of choosing
///           (replay).
/// Types     logits, bias f32; given_experts i32. An id outside [0, experts) gets weight 0.
/// Gradient  d_logits from weights and from scores; none for the bias and the choice. Keeps
///           experts and scores.
/// Order     softmax's sum: 16 lanes over experts, then the fixed lane tree; the sum of the
///           weights: in top_k order. A token's routing depends on its logits alone.
/// Errors    check: shapes, types, the config's bounds.
/// Source    DeepSeek-V2, arXiv 2405.04434 (2.1.2, 2.1.3); DeepSeek-V3, arXiv 2412.19437 (2.1.2).
Routing route(const Tensor& logits,
              const Tensor& bias,
              const RouterConfig& config,
              const Tensor& given_experts = {});

}  // namespace ferry::ops
