#include "models/deepseek_v3/config.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "models/deepseek_v3/size.h"
#include "ops/attention/attention.h"

namespace ferry::models::deepseek_v3 {
namespace {

using nlohmann::ordered_json;
using Json = nlohmann::json;

constexpr int64_t kSizeMax = int64_t{1} << 24;       // above any real model's
constexpr int64_t kRopeTableMax = int64_t{1} << 30;  // elements: made in memory, at start

/// Fields that say nothing about what the model computes here (bookkeeping, generation, training of
/// the original). Each is accepted whatever its value.
const std::set<std::string>& ignored_fields() {
  static const std::set<std::string> names = {"_name_or_path",
                                              "architectures",
                                              "attention_dropout",
                                              "auto_map",
                                              "aux_loss_alpha",
                                              "dtype",
                                              "ep_size",
                                              "model_type",
                                              "output_router_logits",
                                              "pad_token_id",
                                              "pretraining_tp",
                                              "return_dict",
                                              "router_aux_loss_coef",
                                              "seq_aux",
                                              "torch_dtype",
                                              "transformers_version",
                                              "use_cache",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "is_encoder_decoder",
                                              "chunk_size_feed_forward",
                                              "id2label",
                                              "label2id",
                                              "problem_type"};
  return names;
}

/// Reads fields one by one and remembers which ones it saw, so that the rest can be refused.
class Fields {
 public:
  Fields(const Json& json, std::string path) : json_(json), path_(std::move(path)) {}

  Result<void> integer(const char* name, int64_t& out, int64_t low, int64_t high, bool required) {
    const Json* v = find(name);
    if (v == nullptr) return missing(name, required);
    if (!v->is_number_integer() ||
        (v->is_number_unsigned() && v->get<uint64_t>() > uint64_t{1} << 62))
      return wrong(name, *v, fmt::format("must be a whole number from {} to {}", low, high));
    const int64_t n = v->get<int64_t>();
    if (n < low || n > high)
      return wrong(name, *v, fmt::format("must be from {} to {}", low, high));
    out = n;
    return {};
  }

  Result<void> number(const char* name, double& out, double low, double high, bool required) {
    const Json* v = find(name);
    if (v == nullptr) return missing(name, required);
    const double x = v->is_number() ? v->get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(x >= low && x <= high))
      return wrong(name, *v, fmt::format("must be a number from {:g} to {:g}", low, high));
    out = x;
    return {};
  }

  Result<void> boolean(const char* name, bool& out) {
    const Json* v = find(name);
    if (v == nullptr) return {};
    if (!v->is_boolean()) return wrong(name, *v, "must be true or false");
    out = v->get<bool>();
    return {};
  }

  Result<void> text(const char* name, std::string& out) {
    const Json* v = find(name);
    if (v == nullptr) return {};
    if (!v->is_string()) return wrong(name, *v, "must be a text");
    out = v->get<std::string>();
    return {};
  }

  /// A field that Ferry supports with this one value only.
  Result<void> only(const char* name, const Json& allowed) {
    const Json* v = find(name);
    if (v == nullptr || *v == allowed) return {};
    return wrong(name, *v, fmt::format("is not supported; Ferry computes {}", allowed.dump()));
  }

  const Json* find(const char* name) {
    seen_.insert(name);
    const auto it = json_.find(name);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  Result<void> refuse_unknown(const std::set<std::string>& ignored) const {
    for (const auto& [name, value] : json_.items())
      if (!seen_.contains(name) && !ignored.contains(name))
        return wrong(name.c_str(),
                     value,
                     "is not a field that Ferry knows; it may change what the model computes");
    return {};
  }

  tl::unexpected<Status> wrong(const char* name, const Json& v, std::string_view why) const {
    std::string shown = v.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 60) shown.replace(57, std::string::npos, "...");
    return fail(Code::kInvalidInput, "{}: \"{}\": {} {}", path_, name, shown, why);
  }

 private:
  Result<void> missing(const char* name, bool required) const {
    if (!required) return {};
    return fail(Code::kInvalidInput, "{}: \"{}\" is missing", path_, name);
  }

  const Json& json_;
  std::string path_;
  std::set<std::string> seen_;
};

Result<void> parse_yarn(const Json& json, const std::string& path, Config& c) {
  if (!json.is_object()) return fail(Code::kInvalidInput, "{}: must be an object", path);
  Fields f(json, path);
  std::string type, rope_type;
  TRY(f.text("type", type));
  TRY(f.text("rope_type", rope_type));
  if (type.empty()) type = rope_type;
  TRY(f.number("rope_theta", c.rope_theta, 1, 1e12, false));
  if (type == "default" || type.empty()) return f.refuse_unknown({"partial_rotary_factor"});
  if (type != "yarn")
    return fail(Code::kInvalidInput,
                "{}: type \"{}\" is not supported; Ferry computes \"yarn\"",
                path,
                type);
  Yarn y;
  TRY(f.number("factor", y.factor, 1, 1e6, true));
  TRY(f.number("beta_fast", y.beta_fast, 1e-3, 1e6, false));
  TRY(f.number("beta_slow", y.beta_slow, 1e-3, 1e6, false));
  TRY(f.number("mscale", y.mscale, 0, 100, false));
  TRY(f.number("mscale_all_dim", y.mscale_all_dim, 0, 100, false));
  TRY(f.integer(
      "original_max_position_embeddings", y.original_max_position_embeddings, 1, kSizeMax, true));
  c.yarn = y;
  return f.refuse_unknown({"partial_rotary_factor"});
}

Result<void> parse_gate(Fields& f, Config& c) {
  std::string scoring = c.v2 ? "softmax" : "sigmoid";
  TRY(f.text("scoring_func", scoring));
  if (scoring == "sigmoid")
    c.scoring_func = Scoring::kSigmoid;
  else if (scoring == "softmax")
    c.scoring_func = Scoring::kSoftmax;
  else
    return f.wrong("scoring_func", scoring, "must be \"sigmoid\" or \"softmax\"");
  std::string method = c.v2 ? "greedy" : "noaux_tc";
  TRY(f.text("topk_method", method));
  if (method == "noaux_tc")
    c.topk_method = TopK::kNoAuxTc;
  else if (method == "greedy")
    c.topk_method = TopK::kGreedy;
  else if (method == "group_limited_greedy")
    c.topk_method = TopK::kGroupLimitedGreedy;
  else
    return f.wrong(
        "topk_method", method, "must be \"noaux_tc\", \"greedy\" or \"group_limited_greedy\"");
  TRY(f.integer("n_group", c.n_group, 1, kSizeMax, false));
  TRY(f.integer("topk_group", c.topk_group, 1, kSizeMax, false));
  c.norm_topk_prob = !c.v2;
  TRY(f.boolean("norm_topk_prob", c.norm_topk_prob));
  // DeepSeek's and Transformers' V2 differ on what renormalised weights are scaled by: not guessed
  // at.
  if (c.v2) TRY(f.only("norm_topk_prob", false));
  TRY(f.number("routed_scaling_factor", c.routed_scaling_factor, 1e-6, 1e6, false));
  return {};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const Json json, parse_json(text, path));
  if (!json.is_object()) return fail(Code::kInvalidInput, "{}: must be a JSON object", path);
  Fields f(json, path);
  Config c;
  std::string type;
  TRY(f.text("model_type", type));
  if (type != "deepseek_v3" && type != "deepseek_v2")
    return fail(
        Code::kInvalidInput,
        "{}: \"model_type\": \"{}\" is not supported; Ferry knows deepseek_v2 and deepseek_v3",
        path,
        type);
  c.v2 = type == "deepseek_v2";
  TRY(f.integer("vocab_size", c.vocab_size, 2, kSizeMax, true));
  TRY(f.integer("hidden_size", c.hidden_size, 1, kSizeMax, true));
  TRY(f.integer("num_hidden_layers", c.num_hidden_layers, 1, 10000, true));
  TRY(f.integer("intermediate_size", c.intermediate_size, 1, kSizeMax, true));
  TRY(f.integer("n_routed_experts", c.n_routed_experts, 0, ops::kExpertsMax, false));
  TRY(f.integer("first_k_dense_replace", c.first_k_dense_replace, 0, 10000, false));
  TRY(f.integer("moe_layer_freq", c.moe_layer_freq, 1, 10000, false));
  TRY(f.integer(
      "moe_intermediate_size", c.moe_intermediate_size, 1, kSizeMax, c.n_routed_experts > 0));
  TRY(f.integer("n_shared_experts", c.n_shared_experts, 0, 1024, false));
  TRY(f.integer(
      "num_experts_per_tok", c.num_experts_per_tok, 0, ops::kExpertsMax, c.n_routed_experts > 0));
  TRY(parse_gate(f, c));
  TRY(f.integer("num_attention_heads", c.num_attention_heads, 1, 65536, true));
  TRY(f.integer("q_lora_rank", c.q_lora_rank, 1, kSizeMax, false));
  TRY(f.integer("kv_lora_rank", c.kv_lora_rank, 1, kSizeMax, true));
  TRY(f.integer("qk_nope_head_dim", c.qk_nope_head_dim, 1, 65536, true));
  TRY(f.integer("qk_rope_head_dim", c.qk_rope_head_dim, 2, 65536, true));
  TRY(f.integer("v_head_dim", c.v_head_dim, 1, 65536, true));
  TRY(f.only("qk_head_dim", c.qk_head_dim()));
  TRY(f.only("head_dim",
             c.qk_rope_head_dim));  // Transformers writes the rotated width under this name
  TRY(f.only("num_key_value_heads", c.num_attention_heads));
  TRY(f.only("num_local_experts", c.n_routed_experts));
  TRY(f.number("rms_norm_eps", c.rms_norm_eps, 1e-30, 1, false));
  TRY(f.number("rope_theta", c.rope_theta, 1, 1e12, false));
  c.rope_interleave = true;
  TRY(f.boolean("rope_interleave", c.rope_interleave));
  if (const Json* scaling = f.find("rope_scaling"))
    TRY(parse_yarn(*scaling, path + ": \"rope_scaling\"", c));
  if (const Json* rope = f.find("rope_parameters"))
    TRY(parse_yarn(*rope, path + ": \"rope_parameters\"", c));
  TRY(f.integer("max_position_embeddings", c.max_position_embeddings, 1, ops::kPositionMax, false));
  TRY(f.integer("num_nextn_predict_layers", c.num_nextn_predict_layers, 0, 1, false));
  TRY(f.number("initializer_range", c.initializer_range, 0, 10, false));
  TRY(f.boolean("tie_word_embeddings", c.tie_word_embeddings));
  TRY(f.integer("bos_token_id", c.bos_token_id, 0, kSizeMax, false));
  TRY(f.integer("eos_token_id", c.eos_token_id, 0, kSizeMax, false));
  TRY(f.only("hidden_act", "silu"));
  TRY(f.only("attention_bias", false));
  TRY(f.only("mlp_bias", false));
  if (const Json* quantized = f.find("quantization_config"))
    return f.wrong(
        "quantization_config", *quantized, "is not supported; convert the weights to bf16 first");
  TRY(f.refuse_unknown(ignored_fields()));
  TRY(validate(c, path));
  return c;
}

Result<void> validate(const Config& c, const std::string& path) {
  const auto require = [&](bool ok, std::string_view rule) -> Result<void> {
    if (ok) return {};
    return fail(Code::kInvalidInput, "{}: {}", path, rule);
  };
  const char* rope = ops::problem_of(rope_config(c));
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
  TRY(require(c.bos_token_id < c.vocab_size && c.eos_token_id < c.vocab_size,
              "bos_token_id and eos_token_id must be below vocab_size"));
  const double parameters = parameters_total(c);
  return require(parameters <= kParametersMax,
                 fmt::format("its sizes make {:.3g} parameters, more than {:.3g}; check them",
                             parameters,
                             kParametersMax));
}

ops::RopeConfig rope_config(const Config& c) {
  ops::RopeConfig r;
  r.dim = c.qk_rope_head_dim;
  r.theta = c.rope_theta;
  if (!c.yarn) return r;
  r.yarn = true;
  r.factor = c.yarn->factor;
  r.original_max_position = c.yarn->original_max_position_embeddings;
  r.beta_fast = c.yarn->beta_fast;
  r.beta_slow = c.yarn->beta_slow;
  r.mscale = c.yarn->mscale;
  r.mscale_all_dim = c.yarn->mscale_all_dim;
  return r;
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

std::string to_json(const Config& c, std::string_view torch_dtype) {
  const char* method = c.topk_method == TopK::kNoAuxTc  ? "noaux_tc"
                       : c.topk_method == TopK::kGreedy ? "greedy"
                                                        : "group_limited_greedy";
  ordered_json j;
  j["architectures"] =
      ordered_json::array({c.v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"});
  j["model_type"] = c.v2 ? "deepseek_v2" : "deepseek_v3";
  j["attention_bias"] = false;
  j["attention_dropout"] = 0.0;
  j["bos_token_id"] = c.bos_token_id;
  j["eos_token_id"] = c.eos_token_id;
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
  j["rope_scaling"] = nullptr;
  if (c.yarn)
    j["rope_scaling"] = {
        {"type", "yarn"},
        {"factor", c.yarn->factor},
        {"beta_fast", c.yarn->beta_fast},
        {"beta_slow", c.yarn->beta_slow},
        {"mscale", c.yarn->mscale},
        {"mscale_all_dim", c.yarn->mscale_all_dim},
        {"original_max_position_embeddings", c.yarn->original_max_position_embeddings}};
  j["rope_theta"] = c.rope_theta;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = torch_dtype;
  j["use_cache"] = true;
  j["v_head_dim"] = c.v_head_dim;
  j["vocab_size"] = c.vocab_size;
  return j.dump(2) + "\n";
}

}  // namespace ferry::models::deepseek_v3
