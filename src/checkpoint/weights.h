// A model's weights into and out of a model directory.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/model_dir.h"
#include "tensor/weight.h"

namespace ferry {

/// A second name under which checkpoints store a weight (DeepSeek's MTP layers repeat the embedding
/// and the head). Written again; when read, its values must equal the weight's.
using WeightAlias = std::pair<std::string, const Weight*>;

/// Fills every weight from the directory, converted to the type it is stored in. Tensors named in
/// `unused` are left alone.
/// Errors: kInvalidInput naming the tensor: missing, of another shape, or one that the model does
/// not have; kCorrupt: an alias that differs from its weight, a checksum.
Result<void> load_weights(ModelDir& dir,
                          const std::vector<Weight*>& weights,
                          const std::vector<WeightAlias>& aliases,
                          const std::set<std::string>& unused = {});

/// The tensors of a model directory, in the weights' order; matrices stored as `matrices` (f32 or
/// bf16), vectors (norms, selection biases) always in f32.
std::vector<NamedTensor> stored_weights(const std::vector<Weight*>& weights,
                                        const std::vector<WeightAlias>& aliases,
                                        DType matrices);

}  // namespace ferry
