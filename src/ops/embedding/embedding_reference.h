// embedding in float64, for judging kernels.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// ids [tokens], w [vocab, hidden]; see embedding.h.
RefTensor embedding_reference(const RefTensor& ids, const RefTensor& w);

}  // namespace ferry::ops
