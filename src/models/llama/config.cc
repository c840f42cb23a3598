#include "models/llama/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "models/config_fields.h"
#include "models/config_rope.h"
#include "models/llama/size.h"
#include "ops/attention/attention.h"

namespace ferry::models::llama {
namespace {

using Json = nlohmann::json;
using nlohmann::ordered_json;
}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const Json json, parse_json(text, path));
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields f(json, path, problem);
  Config c;
  const std::string type = f.text("model_type", "");
  if (type != "llama" && type != "qwen2")
    f.refuse("model_type", "is not supported; Ferry knows llama and qwen2");
  c.qwen2 = type == "qwen2";
  c.vocab_size = f.integer("vocab_size", 2, kSizeMax);
  c.hidden_size = f.integer("hidden_size", 1, kSizeMax);
  c.intermediate_size = f.integer("intermediate_size", 1, kSizeMax);
  c.num_hidden_layers = f.integer("num_hidden_layers", 1, kLayersMax);
  c.num_attention_heads = f.integer("num_attention_heads", 1, kHeadsMax);
  c.num_key_value_heads = f.integer("num_key_value_heads", 1, kHeadsMax, c.num_attention_heads);
  const int64_t even = c.hidden_size / std::max<int64_t>(c.num_attention_heads, 1);
  c.head_dim = f.integer("head_dim", 2, kHeadsMax, even);
  c.rms_norm_eps = f.real("rms_norm_eps", 1e-30, 1, c.rms_norm_eps);
  c.max_position_embeddings =
      f.integer("max_position_embeddings", 1, ops::kPositionMax, c.qwen2 ? 32768 : 2048);
  using enum ops::RopeScaling;
  read_rope(
      f, {kLinear, kLlama3, kYarn}, c.max_position_embeddings, YarnRule::kTransformers, c.rope);
  c.rope.dim = c.head_dim;
  c.initializer_range = f.real("initializer_range", 0, 10, c.initializer_range);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings", c.tie_word_embeddings);
  c.ids = read_text_ids(f);
  f.only("hidden_act", "silu");
  f.only("attention_bias", false);
  f.only("mlp_bias", false);
  f.only("rope_interleaved", false);  // SmolLM2 says this and the next
  f.only("is_llama_config", true);
  f.only("use_mrope", false);
  // Qwen2's window is one only where it is said to be used.
  f.only("use_sliding_window", false);
  f.find("sliding_window");
  f.find("max_window_layers");
  if (f.has("layer_types"))
    for (const Json& kind : f.list("layer_types"))
      if (kind != "full_attention")
        f.refuse("layer_types", "must be \"full_attention\" in every layer");
  if (f.has("quantization_config"))
    f.refuse("quantization_config", quantised_otherwise(f.at("quantization_config")));
  f.refuse_unknown(ignored_fields(), kUnknownField);
  TRY(problem.done());
  TRY(validate(c, path));
  return c;
}

Result<void> validate(const Config& c, const std::string& path) {
  const auto require = [&](bool ok, std::string_view rule) -> Result<void> {
    if (ok) return {};
    return fail(Code::kInvalidInput, "{}: {}", path, rule);
  };
  TRY(require(c.rope.dim == c.head_dim, "RoPE must turn all of head_dim"));
  if (const char* rope = ops::problem_of(c.rope))
    return fail(Code::kInvalidInput, "{}: head_dim, rope_theta, rope_scaling: {}", path, rope);
  TRY(require(c.num_attention_heads % c.num_key_value_heads == 0,
              "num_key_value_heads must divide num_attention_heads"));
  TRY(require(c.num_attention_heads * c.head_dim <= kSizeMax,
              "num_attention_heads times head_dim is too large"));
  TRY(require(c.max_position_embeddings * (c.head_dim / 2) <= kRopeTableMax,
              fmt::format("max_position_embeddings times half of head_dim must be at most {}",
                          kRopeTableMax)));
  TRY(check_text_ids(c.ids, c.vocab_size, path));
  return check_parameters(parameters_total(c), path);
}

std::string to_json(const Config& c, std::string_view torch_dtype) {
  ordered_json j;
  j["architectures"] = ordered_json::array({c.qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"});
  j["model_type"] = c.qwen2 ? "qwen2" : "llama";
  if (!c.qwen2) j["attention_bias"] = false;
  j["attention_dropout"] = 0.0;
  write_text_ids(c.ids, j);
  j["head_dim"] = c.head_dim;
  j["hidden_act"] = "silu";
  j["hidden_size"] = c.hidden_size;
  j["initializer_range"] = c.initializer_range;
  j["intermediate_size"] = c.intermediate_size;
  j["max_position_embeddings"] = c.max_position_embeddings;
  if (!c.qwen2) j["mlp_bias"] = false;
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_key_value_heads"] = c.num_key_value_heads;
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_scaling"] = rope_scaling_json(c.rope);
  j["rope_theta"] = c.rope.theta;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = torch_dtype;
  j["use_cache"] = true;
  if (c.qwen2) j["use_sliding_window"] = false;
  j["vocab_size"] = c.vocab_size;
  return json_text(j, 2) + "\n";
}

}  // namespace ferry::models::llama
