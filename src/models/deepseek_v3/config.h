// config.json of DeepSeek V2, V2-Lite, V3 and R1: each field is honoured or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "models/config_fields.h"
#include "ops/rope/rope_config.h"
#include "ops/router/router_config.h"

namespace ferry::models::deepseek_v3 {

enum class Scoring { kSigmoid, kSoftmax };
enum class TopK { kGreedy, kGroupLimitedGreedy, kNoAuxTc };

/// Names are those of config.json; sizes in elements.
struct Config {
  bool v2 = false;  // model_type deepseek_v2: softmax gate, no selection bias
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t first_k_dense_replace = 0;  // the first layers with a dense MLP
  int64_t moe_layer_freq = 1;         // from there on, every so many layers is a MoE layer
  int64_t intermediate_size = 0;      // of dense MLPs
  int64_t moe_intermediate_size = 0;  // of one expert
  int64_t n_routed_experts = 0;       // 0: no MoE anywhere
  int64_t n_shared_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_group = 1;
  int64_t topk_group = 1;
  TopK topk_method = TopK::kNoAuxTc;
  Scoring scoring_func = Scoring::kSigmoid;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1;
  int64_t num_attention_heads = 0;
  int64_t q_lora_rank = 0;  // 0: null, one q_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;
  double rms_norm_eps = 1e-6;
  bool rope_interleave = true;
  ops::RopeConfig rope;  // dim: qk_rope_head_dim; scaling: none, or YaRN
  int64_t max_position_embeddings = 4096;
  int64_t num_nextn_predict_layers = 0;  // MTP modules: 0 or 1
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  TextIds ids;  // bos_token_id, eos_token_id

  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  bool is_moe(int64_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
  }
};

/// Errors: kInvalidInput naming the path, the field, its value and what is allowed. Fields that
/// Ferry does not know are refused, unless they are null: they might change what the model computes.
Result<Config> parse_config(std::string_view json, const std::string& path);

/// The fields of it that Transformers (5.23) reads and does not honour, by name: it opens the
/// directory and computes another model, or lacks weights. Empty: it computes this one. DeepSeek's
/// own code knows them all.
std::string differs_in_transformers(const Config& config);

/// config.json, as Transformers reads it. `torch_dtype` is "float32" or "bfloat16".
std::string to_json(const Config& config, std::string_view torch_dtype);

/// What its router is asked for.
ops::RouterConfig router_config(const Config& config);  // there are experts

/// The rules that hold between fields (groups divide experts, ...) and what its ops take, for
/// configs made in code as well.
Result<void> validate(const Config& config, const std::string& path);

}  // namespace ferry::models::deepseek_v3
