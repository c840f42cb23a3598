// matmul in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/reference_tape.h"
#include "ops/spec.h"
#include "tensor/dtype.h"

namespace ferry::ops {

/// op(a) op(b) for rank 2 in float64; see matmul.h.
template <class T>
RefArray<T> matmul_reference(const RefArray<T>& a,
                             const RefArray<T>& b,
                             bool transpose_a = false,
                             bool transpose_b = false);

/// Bound on the error of sums of k products: k roundings of the f32 accumulator (each within 2^-24
/// of Σ|a b|, `magnitudes`), rounding operands to `compute` if they are not (`rounded_operands` of
/// them), then one rounding to `out`.
std::vector<double> matmul_tolerance(const RefTensor& y,
                                     const RefTensor& magnitudes,
                                     int64_t k,
                                     DType out,
                                     DType compute = DType::kF32,
                                     int rounded_operands = 0);

/// An input of standard normal numbers that bf16 holds exactly, so that rounding to it changes
/// nothing.
InputSpec bf16_exact_input(
    const char* name, const Shape& shape, DType dtype, uint64_t seed, double scale = 1);

}  // namespace ferry::ops
