// embedding in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// ids [tokens], w [vocab, hidden]; see embedding.h.
template <class T>
RefArray<T> embedding_reference(const RefTensor& ids, const RefArray<T>& w);

}  // namespace ferry::ops
