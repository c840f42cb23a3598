// cross_entropy in float64, written plainly: what its kernels are judged by.
#pragma once

#include <vector>

#include "ops/spec.h"

namespace ferry::ops {

/// {loss [1], token_losses [tokens]}; see cross_entropy.h.
std::vector<RefTensor> cross_entropy_reference(const RefTensor& hidden,
                                               const RefTensor& head,
                                               const RefTensor& labels,
                                               double scale);

/// Bounds on the errors of token_losses, from the order of cross_entropy.h.
std::vector<double> cross_entropy_token_bounds(const RefTensor& hidden,
                                               const RefTensor& head,
                                               const RefTensor& labels);

}  // namespace ferry::ops
