// Tensors on the host that references compute with: in float64, or in numbers that are recorded
// (ops/reference_tape.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace ferry::ops {

/// Of float32 and bf16: a number below it may be taken for zero, or kept (docs/numerics.md).
inline constexpr double kLeastNormal = 0x1p-126;

template <class T>
struct RefArray {
  Shape shape;
  std::vector<T> values;

  RefArray() = default;
  explicit RefArray(const Shape& s) : shape(s), values(static_cast<size_t>(s.count())) {}
  T& operator[](int64_t i) { return values[static_cast<size_t>(i)]; }
  const T& operator[](int64_t i) const { return values[static_cast<size_t>(i)]; }
};

using RefTensor = RefArray<double>;

/// The sizes of the elements: what a sum of magnitudes is computed from.
inline RefTensor absolute(RefTensor x) {
  for (double& v : x.values) v = std::abs(v);
  return x;
}

}  // namespace ferry::ops
