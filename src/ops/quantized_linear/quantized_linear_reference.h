// quantized_linear in float64, written plainly: what its kernels are judged by.
#pragma once

#include "ops/spec.h"
#include "tensor/code_panels.h"

namespace ferry::ops {

/// A group of a row of activations as codes and their scale. The two roundings that decide a code
/// (the scale, and the product with its inverse) are part of the definition, so the codes are the
/// kernels'.
struct RoundedGroup {
  std::vector<int> codes;
  double scale;
};
RoundedGroup rounded_group(const double* x, int64_t columns);

struct QuantizedProduct {
  RefTensor y;
  RefTensor magnitudes;  // Σ over groups of |a group's sum * scales|: what f32 sums are wrong by
};

/// x [rows, columns]; codes [matrices, outputs, columns]; scales as scales_input() has them; offsets
/// [matrices + 1].
QuantizedProduct quantized_linear_reference(const RefTensor& x,
                                            const RefTensor& codes,
                                            const RefTensor& scales,
                                            const RefTensor& offsets,
                                            WeightCodes kind);

}  // namespace ferry::ops
