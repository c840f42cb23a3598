// balance_loss and its companions in float64, for judging kernels.
#pragma once

#include <cstdint>
#include <span>

#include "ops/reference_tape.h"

namespace ferry::ops {

/// scores [tokens, experts], experts [tokens, top_k], lengths of the documents; see balance_loss.h.
template <class T>
RefArray<T> balance_loss_reference(const RefArray<T>& scores,
                                   const RefTensor& experts,
                                   std::span<const int32_t> lengths,
                                   double alpha);

/// chosen of any shape; returns [experts].
RefTensor expert_counts_reference(const RefTensor& chosen, int64_t experts);

/// bias and counts [experts]; returns the new bias.
RefTensor bias_update_reference(const RefTensor& bias, const RefTensor& counts, double gamma);

}  // namespace ferry::ops
