// cross_entropy in float64, written plainly: what its kernels are judged by.
#pragma once

#include <vector>

#include "ops/reference_tape.h"

namespace ferry::ops {

/// {loss [1], token_losses [tokens]}; see cross_entropy.h. No weights: each is 1.
template <class T>
std::vector<RefArray<T>> cross_entropy_reference(const RefArray<T>& hidden,
                                                 const RefArray<T>& head,
                                                 const RefTensor& labels,
                                                 double scale,
                                                 const RefTensor& weights = {});

/// Bounds on the errors of token_losses, from the order of cross_entropy.h. `roundings`: of a logit, a
/// sum of products.
std::vector<double> cross_entropy_token_bounds(const RefTensor& hidden,
                                               const RefTensor& head,
                                               const RefTensor& labels,
                                               int64_t roundings);

}  // namespace ferry::ops
