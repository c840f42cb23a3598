// What a forward pass may be told, and what it leaves besides its result.
#pragma once

#include <vector>

#include "models/kv_cache.h"
#include "tensor/tensor.h"

namespace ferry::models {

/// MLA computed with per-head keys and values (fewer operations in training) or on the latent
/// itself (what a cache holds). The two are different numerics; whatever generates or scores uses
/// absorbed.
enum class MlaForm { kExpanded, kAbsorbed };

struct ForwardOptions {
  MlaForm mla_form = MlaForm::kAbsorbed;
  KvCache* cache = nullptr;  // absorbed form only; the tokens are appended to it
  /// Replay: for each MoE layer the experts to use, i32 [tokens, top_k]; empty: routers choose.
  std::vector<Tensor> given_experts = {};
};

/// In layer order.
struct ForwardTrace {
  Tensor before_norm;           // [tokens, hidden] after the last block, if keep_before_norm is set
  std::vector<Tensor> experts;  // i32 [tokens, top_k] of each MoE layer
  std::vector<Tensor> layer_outputs;  // filled if keep_layer_outputs is set
  bool keep_layer_outputs = false;
  bool keep_before_norm = false;
};

}  // namespace ferry::models
