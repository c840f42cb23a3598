// adamw in float64, for judging kernels.
#pragma once

#include "ops/adamw/adamw.h"
#include "ops/reference_tensor.h"

namespace ferry::ops {

struct AdamWState {
  RefTensor p, m, v;
};

/// One step; see adamw.h.
AdamWState adamw_reference(AdamWState state,
                           const RefTensor& grad,
                           const AdamW& options,
                           double grad_scale);

}  // namespace ferry::ops
