// router in float64, for judging kernels.
#pragma once

#include "ops/router/router_config.h"
#include "ops/spec.h"

namespace ferry::ops {

struct RoutingReference {
  RefTensor experts, weights, scores;
  /// How far the choice is from changing: the least gap between neighbours among the best top_k + 1
  /// biased scores and between the last group kept and the first one dropped.
  double margin = 0;
};

/// logits [tokens, experts]; bias [experts] or of rank 0: none; given [tokens, top_k] or of rank 0;
/// see router.h.
RoutingReference router_reference(const RefTensor& logits,
                                  const RefTensor& bias,
                                  const RouterConfig& config,
                                  const RefTensor& given = {});

}  // namespace ferry::ops
