// router in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"
#include "ops/router/router_config.h"

namespace ferry::ops {

template <class T>
struct RoutingReference {
  RefTensor experts;
  RefArray<T> weights, scores;
  /// How far the choice is from changing: the least gap between neighbours among the best top_k + 1
  /// biased scores and between the last group kept and the first one dropped.
  double margin = 0;
};

/// logits [tokens, experts]; bias [experts] or of rank 0: none; given [tokens, top_k] or of rank 0;
/// see router.h.
template <class T>
RoutingReference<T> router_reference(const RefArray<T>& logits,
                                     const RefTensor& bias,
                                     const RouterConfig& config,
                                     const RefTensor& given = {});

}  // namespace ferry::ops
