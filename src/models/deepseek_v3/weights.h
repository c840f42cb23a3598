// The parameters of DeepSeek V2/V3/R1: one struct a block, under the checkpoint's names.
// Shapes are [out, in]; experts are stacked, and their names hold a * for the expert's number.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "models/deepseek_v3/config.h"
#include "tensor/weight.h"

namespace ferry::models::deepseek_v3 {

struct AttentionWeights {
  std::optional<Weight> q_proj;         // [heads * qk_head_dim, hidden], if there is no q_lora
  std::optional<Weight> q_a_proj;       // [q_lora_rank, hidden]
  std::optional<Weight> q_a_layernorm;  // [q_lora_rank]
  std::optional<Weight> q_b_proj;       // [heads * qk_head_dim, q_lora_rank]
  Weight kv_a_proj_with_mqa;            // [kv_lora_rank + qk_rope_head_dim, hidden]
  Weight kv_a_layernorm;                // [kv_lora_rank]
  Weight kv_b_proj;                     // [heads * (qk_nope_head_dim + v_head_dim), kv_lora_rank]
  Weight o_proj;                        // [hidden, heads * v_head_dim]
};

struct MlpWeights {
  Weight gate_proj, up_proj;  // [intermediate, hidden]
  Weight down_proj;           // [hidden, intermediate]
};

struct MoeWeights {
  Weight gate;                                    // [experts, hidden]
  std::optional<Weight> e_score_correction_bias;  // [experts], f32, not trained by gradient
  MlpWeights experts;                             // each with a leading dimension [experts, ...]
  std::optional<MlpWeights> shared_experts;
};

struct LayerWeights {
  Weight input_layernorm;  // [hidden]
  AttentionWeights self_attn;
  Weight post_attention_layernorm;  // [hidden]
  std::optional<MlpWeights> mlp;    // a dense layer
  std::optional<MoeWeights> moe;    // or a MoE layer
};

struct MtpWeights {
  Weight enorm, hnorm;      // [hidden]
  Weight eh_proj;           // [hidden, 2 * hidden], for [enorm(embedding) | hnorm(hidden)]
  LayerWeights layer;       // the last layer number: num_hidden_layers
  Weight shared_head_norm;  // [hidden]; embedding and head are the main model's
};

struct ModelWeights {
  Weight embed_tokens;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  Weight norm;                    // [hidden]
  std::optional<Weight> lm_head;  // [vocab, hidden]; absent when tied to embed_tokens
  std::optional<MtpWeights> mtp;
};

/// Names and shapes as the config says; values uninitialised, in `storage` (f32 or bf16), except
/// norms and the selection bias, which are f32 always. Without `storage` no value has memory.
ModelWeights make_weights(const Config& config, std::optional<DType> storage, Device& device);

/// Every weight, in the checkpoint's order.
void for_each_weight(ModelWeights& weights, const std::function<void(Weight&)>& f);

}  // namespace ferry::models::deepseek_v3
