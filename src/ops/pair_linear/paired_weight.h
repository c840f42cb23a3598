// Weights of given numbers stored as pairs, for those who judge kernels.
#pragma once

#include <string>

#include "tensor/weight.h"

namespace ferry::ops {

/// The weight of these numbers, f32 or bf16, [rows, columns] or a stack of such, on their device.
Weight paired_weight(const std::string& name, const Tensor& numbers);

}  // namespace ferry::ops
