#include "models/deepseek_v3/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json_fields.h"
#include "models/config_fields.h"
#include "models/config_rope.h"
#include "models/deepseek_v3/size.h"
#include "ops/attention/attention.h"

namespace ferry::models::deepseek_v3 {
namespace {

using nlohmann::ordered_json;
using Json = nlohmann::json;

void parse_gate(JsonFields& f, Config& c) {
  const std::string scoring = f.text("scoring_func", c.v2 ? "softmax" : "sigmoid");
  if (scoring == "sigmoid")
    c.scoring_func = Scoring::kSigmoid;
  else if (scoring == "softmax")
    c.scoring_func = Scoring::kSoftmax;
  else
    f.refuse("scoring_func", "must be \"sigmoid\" or \"softmax\"");
  const std::string method = f.text("topk_method", c.v2 ? "greedy" : "noaux_tc");
  if (method == "noaux_tc")
    c.topk_method = TopK::kNoAuxTc;
  else if (method == "greedy")
    c.topk_method = TopK::kGreedy;
  else if (method == "group_limited_greedy")
    c.topk_method = TopK::kGroupLimitedGreedy;
  else
    f.refuse("topk_method", "must be \"noaux_tc\", \"greedy\" or \"group_limited_greedy\"");
  c.n_group = f.integer("n_group", 1, ops::kExpertsMax, c.n_group);
  c.topk_group = f.integer("topk_group", 1, ops::kExpertsMax, c.topk_group);
  c.norm_topk_prob = f.boolean("norm_topk_prob", !c.v2);
  // DeepSeek's and Transformers' V2 differ on what renormalised weights are scaled by: not guessed
  // at.
  if (c.v2) f.only("norm_topk_prob", false);
  c.routed_scaling_factor = f.real("routed_scaling_factor", 1e-6, 1e6, c.routed_scaling_factor);
}

/// Why this way of storing weights is not known; nullptr: DeepSeek-V3's float8 with a scale for each
/// block of 128 x 128. (Activations, which its own server rounds to float8 too, stay as they are.
/// V3.1's "ue8m0" says that its scales are powers of two; the files hold them as any other scale.
/// Which weights are stored as float8 their files say: a list of modules that are not adds nothing.)
std::string refused_quantization(const Json& q) {
  constexpr const char* kKnown =
      "is not supported, only quant_method fp8, fmt e4m3, weight_block_size [128, 128], "
      "activation_scheme dynamic, scale_fmt ue8m0; convert the weights to bf16 first";
  if (!q.is_object() || q.value("quant_method", Json()) != "fp8") return quantised_otherwise(q);
  if (q.value("weight_block_size", Json()) != Json({128, 128})) return kKnown;
  for (const auto& [name, value] : q.items()) {
    const bool known = value.is_null() || name == "quant_method" || name == "weight_block_size" ||
                       name == "modules_to_not_convert" || (name == "fmt" && value == "e4m3") ||
                       (name == "scale_fmt" && value == "ue8m0") ||
                       (name == "dequantize" && value == false) ||
                       (name == "activation_scheme" && value == "dynamic");
    if (!known) return kKnown;
  }
  return "";
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const Json json, parse_json(text, path));
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields f(json, path, problem);
  Config c;
  const std::string type = f.text("model_type", "");
  if (type != "deepseek_v3" && type != "deepseek_v2")
    f.refuse("model_type", "is not supported; Ferry knows deepseek_v2 and deepseek_v3");
  c.v2 = type == "deepseek_v2";
  c.vocab_size = f.integer("vocab_size", 2, kSizeMax);
  c.hidden_size = f.integer("hidden_size", 1, kSizeMax);
  c.num_hidden_layers = f.integer("num_hidden_layers", 1, kLayersMax);
  c.intermediate_size = f.integer("intermediate_size", 1, kSizeMax);
  c.n_routed_experts = f.integer("n_routed_experts", 0, ops::kExpertsMax, c.n_routed_experts);
  c.first_k_dense_replace =
      f.integer("first_k_dense_replace", 0, kLayersMax, c.first_k_dense_replace);
  c.moe_layer_freq = f.integer("moe_layer_freq", 1, kLayersMax, c.moe_layer_freq);
  c.moe_intermediate_size =
      f.integer("moe_intermediate_size",
                1,
                kSizeMax,
                c.n_routed_experts > 0 ? std::nullopt : std::optional(c.moe_intermediate_size));
  c.n_shared_experts = f.integer("n_shared_experts", 0, 1024, c.n_shared_experts);
  c.num_experts_per_tok =
      f.integer("num_experts_per_tok",
                0,
                ops::kExpertsMax,
                c.n_routed_experts > 0 ? std::nullopt : std::optional(c.num_experts_per_tok));
  parse_gate(f, c);
  c.num_attention_heads = f.integer("num_attention_heads", 1, kHeadsMax);
  c.q_lora_rank = f.integer("q_lora_rank", 1, kSizeMax, c.q_lora_rank);
  c.kv_lora_rank = f.integer("kv_lora_rank", 1, kSizeMax);
  c.qk_nope_head_dim = f.integer("qk_nope_head_dim", 1, kHeadsMax);
  c.qk_rope_head_dim = f.integer("qk_rope_head_dim", 2, kHeadsMax);
  c.v_head_dim = f.integer("v_head_dim", 1, kHeadsMax);
  f.only("qk_head_dim", c.qk_head_dim());
  f.only("head_dim", c.qk_rope_head_dim);  // Transformers writes the rotated width under this name
  f.only("num_key_value_heads", c.num_attention_heads);
  f.only("num_local_experts", c.n_routed_experts);
  c.rms_norm_eps = f.real("rms_norm_eps", 1e-30, 1, c.rms_norm_eps);
  c.rope_interleave = f.boolean("rope_interleave", c.rope_interleave);
  read_rope(f, {ops::RopeScaling::kYarn}, 0, YarnRule::kDeepSeek, c.rope);
  c.rope.dim = c.qk_rope_head_dim;
  c.max_position_embeddings =
      f.integer("max_position_embeddings", 1, ops::kPositionMax, c.max_position_embeddings);
  c.num_nextn_predict_layers =
      f.integer("num_nextn_predict_layers", 0, 1, c.num_nextn_predict_layers);
  c.initializer_range = f.real("initializer_range", 0, 10, c.initializer_range);
  c.tie_word_embeddings = f.boolean("tie_word_embeddings", c.tie_word_embeddings);
  c.ids = read_text_ids(f);
  f.only("hidden_act", "silu");
  f.only("attention_bias", false);
  f.only("mlp_bias", false);
  if (f.has("quantization_config"))
    if (const std::string why = refused_quantization(f.at("quantization_config")); !why.empty())
      f.refuse("quantization_config", why);
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
  TRY(require(c.rope.dim == c.qk_rope_head_dim, "RoPE must turn all of qk_rope_head_dim"));
  const char* rope = ops::problem_of(c.rope);
  TRY(require(
      rope == nullptr,
      fmt::format("qk_rope_head_dim, rope_theta, rope_scaling: {}", rope == nullptr ? "" : rope)));
  const auto product_within = [](int64_t a, int64_t b, int64_t most) {
    return static_cast<double>(a) * static_cast<double>(b) <= static_cast<double>(most);
  };
  TRY(require(
      product_within(c.max_position_embeddings, c.qk_rope_head_dim / 2, kRopeTableMax),
      fmt::format("max_position_embeddings times half of qk_rope_head_dim must be at most {}",
                  kRopeTableMax)));
  TRY(require(product_within(c.num_attention_heads, c.qk_head_dim() + c.v_head_dim, kSizeMax),
              "num_attention_heads times the head sizes is too large"));
  TRY(require(product_within(c.num_attention_heads, c.kv_lora_rank + c.qk_rope_head_dim, kSizeMax),
              "num_attention_heads times kv_lora_rank is too large"));
  if (c.n_routed_experts > 0) {
    TRY(require(c.n_routed_experts <= ops::kExpertsMax,
                fmt::format("n_routed_experts must be at most {}", ops::kExpertsMax)));
    TRY(require(c.num_experts_per_tok >= 1 && c.num_experts_per_tok <= c.n_routed_experts,
                "num_experts_per_tok must be from 1 to n_routed_experts"));
    TRY(require(c.n_routed_experts % c.n_group == 0, "n_group must divide n_routed_experts"));
    TRY(require(c.topk_group <= c.n_group, "topk_group must be at most n_group"));
    TRY(require(c.num_experts_per_tok <= c.topk_group * (c.n_routed_experts / c.n_group),
                "topk_group groups hold fewer than num_experts_per_tok experts"));
    TRY(require(
        c.topk_method != TopK::kNoAuxTc || c.n_group == 1 || c.n_routed_experts / c.n_group >= 2,
        "noaux_tc needs at least two experts in a group: a group's score is the sum of its best "
        "two"));
    TRY(require(c.topk_method != TopK::kGreedy || c.n_group == 1 || c.topk_group == c.n_group,
                "topk_method greedy does not limit groups: n_group must be 1"));
    const char* router = ops::problem_of(router_config(c));
    TRY(require(router == nullptr,
                fmt::format("n_routed_experts, num_experts_per_tok, n_group, topk_group: {}",
                            router == nullptr ? "" : router)));
    TRY(require(product_within(c.n_shared_experts, c.moe_intermediate_size, kSizeMax),
                "n_shared_experts times moe_intermediate_size is too large"));
  }
  TRY(require(c.num_nextn_predict_layers == 0 || !c.tie_word_embeddings,
              "num_nextn_predict_layers with tie_word_embeddings is not supported"));
  TRY(check_text_ids(c.ids, c.vocab_size, path));
  return check_parameters(parameters_total(c), path);
}

ops::RouterConfig router_config(const Config& c) {
  ops::RouterConfig r;
  r.sigmoid = c.scoring_func == Scoring::kSigmoid;
  r.experts = static_cast<int>(c.n_routed_experts);
  r.top_k = static_cast<int>(c.num_experts_per_tok);
  const bool grouped = c.topk_method != TopK::kGreedy;
  r.groups = grouped ? static_cast<int>(c.n_group) : 1;
  r.groups_kept = grouped ? static_cast<int>(c.topk_group) : 1;
  r.group_score =
      c.topk_method == TopK::kNoAuxTc ? ops::GroupScore::kTop2Sum : ops::GroupScore::kMax;
  r.normalize = c.norm_topk_prob;
  r.scale = static_cast<float>(c.routed_scaling_factor);
  return r;
}

namespace {

/// Whether the gate is one that Transformers' deepseek_v2 has, and its deepseek_v3 has not.
bool has_v2_gate(const Config& c) {
  return c.n_routed_experts > 0 && c.scoring_func == Scoring::kSoftmax &&
         c.topk_method != TopK::kNoAuxTc && !c.norm_topk_prob;
}

}  // namespace

std::string differs_in_transformers(const Config& c) {
  std::string fields;
  const auto add = [&](const char* field) {
    fields += fmt::format("{}{}", fields.empty() ? "" : ", ", field);
  };
  // Of a temperature that is 0 it believes that both are not given.
  const ops::RopeConfig& r = c.rope;
  if (r.scaling == ops::RopeScaling::kYarn && r.factor > 1 &&
      (r.mscale == 0 || r.mscale_all_dim == 0) && !(r.mscale == 1 && r.mscale_all_dim == 0))
    add("rope_scaling.mscale");
  if (c.n_routed_experts == 0) return fields;
  if (!has_v2_gate(c)) {
    if (c.scoring_func != Scoring::kSigmoid) add("scoring_func");
    if (c.topk_method != TopK::kNoAuxTc) add("topk_method");
  }
  if (c.moe_layer_freq != 1) add("moe_layer_freq");
  return fields;
}

std::string to_json(const Config& c, std::string_view torch_dtype) {
  // As Transformers reads it: its deepseek_v3 has one gate, whatever these fields say.
  const bool v2 = c.v2 || has_v2_gate(c);
  const char* method = c.topk_method == TopK::kNoAuxTc  ? "noaux_tc"
                       : c.topk_method == TopK::kGreedy ? "greedy"
                                                        : "group_limited_greedy";
  ordered_json j;
  j["architectures"] =
      ordered_json::array({v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"});
  j["model_type"] = v2 ? "deepseek_v2" : "deepseek_v3";
  j["attention_bias"] = false;
  j["attention_dropout"] = 0.0;
  write_text_ids(c.ids, j);
  j["first_k_dense_replace"] =
      c.n_routed_experts > 0 ? c.first_k_dense_replace : c.num_hidden_layers;
  j["hidden_act"] = "silu";
  j["hidden_size"] = c.hidden_size;
  j["initializer_range"] = c.initializer_range;
  j["intermediate_size"] = c.intermediate_size;
  j["kv_lora_rank"] = c.kv_lora_rank;
  j["max_position_embeddings"] = c.max_position_embeddings;
  if (c.n_routed_experts > 0) {
    j["moe_intermediate_size"] = c.moe_intermediate_size;
    j["moe_layer_freq"] = c.moe_layer_freq;
    j["n_group"] = c.n_group;
    j["n_routed_experts"] = c.n_routed_experts;
    j["n_shared_experts"] = c.n_shared_experts;
    j["norm_topk_prob"] = c.norm_topk_prob;
    j["num_experts_per_tok"] = c.num_experts_per_tok;
    j["routed_scaling_factor"] = c.routed_scaling_factor;
    j["scoring_func"] = c.scoring_func == Scoring::kSigmoid ? "sigmoid" : "softmax";
    j["topk_group"] = c.topk_group;
    j["topk_method"] = method;
  }
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_key_value_heads"] = c.num_attention_heads;
  j["num_nextn_predict_layers"] = c.num_nextn_predict_layers;
  j["q_lora_rank"] = c.q_lora_rank > 0 ? ordered_json(c.q_lora_rank) : ordered_json(nullptr);
  j["qk_nope_head_dim"] = c.qk_nope_head_dim;
  j["qk_rope_head_dim"] = c.qk_rope_head_dim;
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_interleave"] = c.rope_interleave;
  j["rope_scaling"] = rope_scaling_json(c.rope);
  j["rope_theta"] = c.rope.theta;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = torch_dtype;
  j["use_cache"] = true;
  j["v_head_dim"] = c.v_head_dim;
  j["vocab_size"] = c.vocab_size;
  return json_text(j, 2) + "\n";
}

}  // namespace ferry::models::deepseek_v3
