// dequantize in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"

namespace ferry::ops {

/// codes (their numbers as integers 0 to 255) and scales with or without a batch in front.
RefTensor dequantize_reference(const RefTensor& codes,
                               const RefTensor& scales,
                               int64_t block_rows,
                               int64_t block_columns);

}  // namespace ferry::ops
