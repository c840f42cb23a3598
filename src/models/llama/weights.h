// The parameters of Llama and Qwen2: one struct a block, under the checkpoint's names.
// Shapes are [out, in].
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "models/llama/config.h"
#include "tensor/weight.h"

namespace ferry::models::llama {

struct LayerWeights {
  Weight input_layernorm;                        // [hidden]
  Weight q_proj;                                 // [heads * head_dim, hidden]
  Weight k_proj, v_proj;                         // [kv_heads * head_dim, hidden]
  std::optional<Weight> q_bias, k_bias, v_bias;  // Qwen2: one number for each of their rows
  Weight o_proj;                                 // [hidden, heads * head_dim]
  Weight post_attention_layernorm;               // [hidden]
  Weight gate_proj, up_proj;                     // [intermediate, hidden]
  Weight down_proj;                              // [hidden, intermediate]
};

struct ModelWeights {
  Weight embed_tokens;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  Weight norm;                    // [hidden]
  std::optional<Weight> lm_head;  // [vocab, hidden]; absent when tied to embed_tokens
};

/// Names and shapes as the config says; values uninitialised, matrices in `storage`, vectors in f32
/// always. Without `storage` no value has memory.
ModelWeights make_weights(const Config& config, std::optional<DType> storage, Device& device);

/// Every weight, in the checkpoint's order.
void for_each_weight(ModelWeights& weights, const std::function<void(Weight&)>& f);

}  // namespace ferry::models::llama
