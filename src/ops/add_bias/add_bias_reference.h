// add_bias in float64, for judging kernels.
#pragma once

#include "ops/reference_tape.h"

namespace ferry::ops {

/// x [tokens, columns], bias [columns]; see add_bias.h.
template <class T>
RefArray<T> add_bias_reference(const RefArray<T>& x, const RefArray<T>& bias);

}  // namespace ferry::ops
