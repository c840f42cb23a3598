// What tests of ops share.
#pragma once

#include <vector>

#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "tensor/tensor.h"

namespace ferry::ops {

/// Normal numbers on the CPU, others for each stream.
inline Tensor normal(const Shape& shape, DType dtype, uint64_t stream) {
  const Random random(7, RandomPurpose::kTest, stream);
  std::vector<float> values(static_cast<size_t>(shape.count()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
  Tensor t = Tensor::empty(shape, dtype, cpu_device());
  t.assign_f32(values);
  return t;
}

}  // namespace ferry::ops
