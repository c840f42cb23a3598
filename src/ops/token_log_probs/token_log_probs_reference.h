// token_log_probs in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

RefTensor token_log_probs_reference(const RefTensor& logits,
                                    const RefTensor& ids,
                                    const RefTensor& temperatures);

}  // namespace ferry::ops
