// Weights in the layout in which products of a few rows read them: made at a weight's first such
// use, kept beside it, for models that are trained. Those that only answer store their weights in
// this layout alone (ops/pair_linear).
#pragma once

#include "tensor/weight.h"

namespace ferry::ops {

/// The panels of a weight [n, k], or of experts [experts, n, k] one after the other, for
/// MatmulArgs::panels; not given where the device, the tier, the compute type or the number of rows
/// (of each product, in the mean) has no use for them, where the weight is stored as codes (panels
/// would take more memory than it), or while a tape records: a weight that is being trained changes
/// in every step. Many rows make none, but take what is there.
///
/// Memory    half of the weight's in f32, as much as it in bf16.
/// Threads   one at a time uses a weight.
View packed_panels(const Weight& weight, int64_t rows, DType compute);

}  // namespace ferry::ops
