// Weights of given codes, for those who judge kernels.
#pragma once

#include <vector>

#include "tensor/weight.h"

namespace ferry::ops {

/// Codes and scales row by row: [matrices, outputs, inputs] and [matrices, outputs, groups].
Weight quantized_weight(WeightCodes kind,
                        const Shape& shape,
                        const std::vector<int32_t>& codes,
                        const std::vector<float>& scales,
                        Device& device);

}  // namespace ferry::ops
