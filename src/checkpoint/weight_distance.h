// How far a converted model's numbers are from those of what it was made from: what `ferry verify --source` judges.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "tensor/weight.h"

namespace ferry {

struct WeightDistance {
  int64_t numbers = 0;  // that were compared
  double worst = 0;     // the largest distance, in parts of the largest that its format allows
  std::string tensor;   // that has it; empty: all numbers are equal
};

/// Compares each weight of `made` with the same of `source`, tensor by tensor. What a format allows follows from the
/// source's numbers: of int8 half a step of 127 in the largest of the row; of int4 what the largest of 32 loses where
/// the scale is the smallest that is tried (tensor/quantise.h); of bf16 half a unit in the last place; of f32
/// nothing. Weights give names and shapes, and need no memory; both must have passed check_stored_weights(). Some
/// MiB of each are in memory at a time. `compared` is called after each tensor. Errors: of reading; kInvalidInput,
/// naming a tensor of `made` that is stored as something else, of which none of this follows.
Result<WeightDistance> distance_of_weights(ModelSource& made,
                                           ModelSource& source,
                                           const std::vector<Weight*>& weights,
                                           const std::function<void()>& compared);

}  // namespace ferry
