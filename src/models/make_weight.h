// How models make their parameters.
#pragma once

#include <optional>
#include <string>

#include "tensor/weight.h"

namespace ferry::models {

/// A whole weight of a layer, its values uninitialised: matrices in `storage`, vectors in f32 always;
/// without `storage` it has no memory.
inline Weight make_weight(std::string name,
                          WeightRole role,
                          int layer,
                          const Shape& shape,
                          std::optional<DType> storage,
                          Device& device) {
  Weight w;
  w.name = std::move(name);
  w.role = role;
  w.layer = layer;
  w.global_shape = shape;
  w.shard = {.dim = 0, .begin = 0, .end = shape[0]};
  if (storage) w.value = Tensor::empty(shape, w.matrix() ? *storage : DType::kF32, device);
  return w;
}

}  // namespace ferry::models
