// The experts of a layer in one tensor, as Transformers 5 has them in memory and writes them where it is not asked for
// the names that DeepSeek's releases use (`save_pretrained(..., save_original_format=False)`, a state dictionary).
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/safetensors.h"

namespace ferry {

/// Experts of a layer, more than any model has: a file must not ask for any number of names.
inline constexpr int64_t kExpertsStoredMax = 4096;

/// The matrices that `fused` holds, each under its expert's name, and where in the file they lie:
///   X.mlp.experts.gate_up_proj [E, 2I, H]: X.mlp.experts.e.gate_proj.weight [I, H], behind it e.up_proj.weight;
///   X.mlp.experts.down_proj [E, H, I]:     X.mlp.experts.e.down_proj.weight [H, I].
/// None: it is another tensor, or of no such shape.
std::vector<TensorInfo> experts_in(const TensorInfo& fused);

}  // namespace ferry
