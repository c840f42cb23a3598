// The numbers that codes and their scales stand for.
#pragma once

#include "tensor/weight.h"

namespace ferry::ops {

/// y = number(code) * scale, the scale being that of the block of rows and columns that the element
/// lies in. Blocks at the right and lower edge may be cut.
///
/// Shapes    codes [rows, columns] or [batch, rows, columns], contiguous; scales alike, with one
///           element for each block; returns codes' shape.
/// Types     codes float8 e4m3; scales f32; computed in f32, rounded once to `out` (f32 or bf16).
/// Gradient  none.
/// Errors    check: shapes, types.
Tensor dequantize(const Tensor& codes, const Tensor& scales, const ScaleBlocks& blocks, DType out);

/// A weight's numbers as kernels multiply them: the weight's own memory where it holds f32 or bf16,
/// else put in rows, or dequantised, for this call, to `compute`: code * scale, and the least value of a group
/// added where its kind has one, in f32, rounded once. (Where a
/// weight is whole numbers, or pairs of numbers, linear and its kin multiply these instead:
/// quantized_linear.h, pair_linear.h.)
/// Whatever reads the values of a matrix asks here, so that a new way of storing them is known to
/// all ops at once.
/// Errors    check: the weight has values, in one of the ways that Weight::check_stored knows.
Tensor weight_values(const Weight& weight, DType compute);

}  // namespace ferry::ops
