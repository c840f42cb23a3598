// config.json of Llama 2 and 3 and of Qwen2, which share one architecture: grouped-query attention
// and SwiGLU. DeepSeek's R1 distils are of it. Each field is honoured or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "models/config_fields.h"
#include "ops/rope/rope_config.h"

namespace ferry::models::llama {

/// Names are those of config.json; sizes in elements.
struct Config {
  bool qwen2 = false;  // model_type qwen2: queries, keys and values have a bias
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;  // divides num_attention_heads
  int64_t head_dim = 0;             // even
  double rms_norm_eps = 1e-6;
  ops::RopeConfig rope;  // dim: head_dim
  int64_t max_position_embeddings = 2048;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  TextIds ids;  // bos_token_id, eos_token_id
};

/// Errors: kInvalidInput naming the path, the field, its value and what is allowed. Fields that
/// Ferry does not know are refused, unless they are null: they might change what the model computes.
Result<Config> parse_config(std::string_view json, const std::string& path);

/// config.json, as Transformers reads it. `torch_dtype` is "float32" or "bfloat16".
std::string to_json(const Config& config, std::string_view torch_dtype);

/// The rules that hold between fields and what its ops take, for configs made in code as well.
Result<void> validate(const Config& config, const std::string& path);

}  // namespace ferry::models::llama
