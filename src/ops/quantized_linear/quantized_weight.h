// Weights of given codes, for those who judge kernels: inputs of specs, the weight that is made of
// them, and what they stand for, written plainly.
#pragma once

#include <functional>
#include <vector>

#include "ops/spec.h"
#include "tensor/weight.h"

namespace ferry::ops {

/// Every code of the kind, in I32 of the weight's shape; rows of the largest in size among them.
InputSpec codes_input(WeightCodes kind, const Shape& shape);
/// Scales of such a weight: of int8 and int4 numbers [rows, groups]; of the others the bytes of each
/// row, I32 [rows, bytes].
InputSpec scales_input(WeightCodes kind, const Shape& shape);

/// The weight of these two inputs, on their device.
Weight quantized_weight(WeightCodes kind,
                        const Shape& shape,
                        const Tensor& codes,
                        const Tensor& scales);

/// [rows, groups]: what a group's codes are multiplied with, and what is added.
struct ReferenceScales {
  RefTensor scale, least;
};
ReferenceScales reference_scales(WeightCodes kind, int64_t columns, const RefTensor& scales);

/// The numbers that codes stand for.
RefTensor reference_numbers(WeightCodes kind, const RefTensor& codes, const RefTensor& scales);
/// Of an op that gives such numbers as `out`; its last two inputs are codes and scales.
std::function<std::vector<double>(int, const std::vector<RefTensor>&, const RefTensor&)>
codes_tolerance(WeightCodes kind, DType out);

}  // namespace ferry::ops
