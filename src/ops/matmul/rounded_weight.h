// A trained weight as bf16 numbers: rounded once, at its first use after each change, where products
// read such numbers faster than the f32 master copy. A product rounds the weight to its type anyway,
// so no bit depends on it.
#pragma once

#include "tensor/weight.h"

namespace ferry::ops {

/// `values`, which are weight_values() of the weight, as products in `compute` best read them: as
/// they are, or, where the device has it so (MatmulArgs::Traits::takes_rounded) and they are the f32
/// master copy itself, rounded to `compute` and kept beside it until it changes.
///
/// Memory    half of the weight's, while it is kept.
/// Gradient  none: whoever records names `values`, whose gradient it is.
/// Threads   one at a time uses a weight.
Tensor rounded_weight(const Weight& weight, const Tensor& values, DType compute);

}  // namespace ferry::ops
