#include "checkpoint/gguf_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/alive.h"
#include "base/check.h"
#include "base/json.h"
#include "base/math.h"
#include "checkpoint/convert.h"
#include "checkpoint/fused_experts.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_tokenizer.h"
#include "checkpoint/hash_tree.h"
#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kSizeMax = int64_t{1} << 24;
constexpr int64_t kPieceElements = int64_t{1} << 20;  // that are decoded at a time

struct NamePair {
  const char* gguf;
  const char* hub;
};

constexpr std::array<NamePair, 3> kOutside = {{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
}};

/// After "blk.N." and "model.layers.N."; '*': a stack of experts.
constexpr std::array<NamePair, 27> kInBlock = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"attn_q_a.weight", "self_attn.q_a_proj.weight"},
    {"attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight"},
    {"attn_q_b.weight", "self_attn.q_b_proj.weight"},
    {"attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight"},
    {"attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight"},
    {"attn_kv_b.weight", "self_attn.kv_b_proj.weight"},
    {"attn_k_b.weight", "self_attn.kv_b_proj.weight"},  // with attn_v_b: the same in two
    {"ffn_gate_inp.weight", "mlp.gate.weight"},
    {"exp_probs_b.bias", "mlp.gate.e_score_correction_bias"},
    {"ffn_gate_exps.weight", "mlp.experts.*.gate_proj.weight"},
    {"ffn_up_exps.weight", "mlp.experts.*.up_proj.weight"},
    {"ffn_down_exps.weight", "mlp.experts.*.down_proj.weight"},
    {"ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight"},
    {"ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight"},
    {"ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight"},
}};
constexpr std::string_view kKeysOfLatent = "attn_k_b.weight", kValuesOfLatent = "attn_v_b.weight";

constexpr const char* kRopeFactors = "rope_freqs.weight";

/// What Llama 3.1 and 3.2 divide the frequencies of RoPE by. Their config.json has the parameters,
/// GGUF files have only the factors that follow: read back by trying.
struct LlamaScaling {
  double factor, low, high;
  int64_t original;
};
constexpr std::array<LlamaScaling, 2> kLlamaScalings = {{{8, 1, 4, 8192}, {32, 1, 4, 8192}}};

/// Source: Llama 3.1's reference code, as Transformers has it (rope_type "llama3").
double llama_factor(const LlamaScaling& s, double theta, int64_t pair, int64_t dim) {
  const double wavelength =
      2 * math::kPi * math::pow(theta, 2.0 * static_cast<double>(pair) / static_cast<double>(dim));
  const auto original = static_cast<double>(s.original);
  if (wavelength < original / s.high) return 1;
  if (wavelength > original / s.low) return s.factor;
  const double smooth = (original / wavelength - s.low) / (s.high - s.low);
  return 1 / ((1 - smooth) / s.factor + smooth);
}

bool agrees(const LlamaScaling& s, double theta, std::span<const float> factors) {
  const auto pairs = static_cast<int64_t>(factors.size());
  for (int64_t i = 0; i < pairs; ++i) {
    const double expected = llama_factor(s, theta, i, 2 * pairs);
    if (!(std::fabs(static_cast<double>(factors[static_cast<size_t>(i)]) - expected) <=
          1e-5 * expected))
      return false;
  }
  return true;
}

/// Reads the values of one architecture: "llama.block_count" is `block_count` here.
class Header {
 public:
  Header(const GgufFile& file, std::string arch) : file_(file), arch_(std::move(arch)) {}

  const GgufFile& file() const { return file_; }
  const std::string& arch() const { return arch_; }
  std::string key(const char* name) const { return arch_ + "." + name; }
  bool has(const char* name) const { return file_.has(key(name)); }
  Result<int64_t> size(const char* name) const { return file_.integer(key(name), 1, kSizeMax); }
  /// What is given, or `otherwise`.
  Result<int64_t> size(const char* name, int64_t otherwise) const {
    return has(name) ? file_.integer(key(name), 0, kSizeMax) : Result<int64_t>(otherwise);
  }
  /// The file has numbers rounded to f32; this is the number that was meant.
  Result<double> number(const char* name, std::optional<double> otherwise = {}) const {
    if (otherwise && !has(name)) return *otherwise;
    TRY_ASSIGN(const double v, file_.number(key(name)));
    return std::strtod(fmt::format("{}", static_cast<float>(v)).c_str(), nullptr);
  }
  Result<bool> truth(const char* name, bool otherwise) const {
    return has(name) ? file_.value<bool>(key(name), "true or false") : Result<bool>(otherwise);
  }
  /// Fails unless two sizes of the header agree.
  Result<void> expect(const char* name, int64_t expected, const char* why) const {
    TRY_ASSIGN(const int64_t v, size(name, expected));
    if (v == expected) return {};
    return fail(Code::kInvalidInput,
                "{}: \"{}\" is {} and must be {}: {}",
                file_.path(),
                key(name),
                v,
                expected,
                why);
  }

 private:
  const GgufFile& file_;
  std::string arch_;
};

/// What all architectures have, as config.json names it.
Result<ordered_json> common_config(const Header& h) {
  const GgufFile& f = h.file();
  ordered_json j;
  TRY_ASSIGN(j["num_hidden_layers"], f.integer(h.key("block_count"), 1, 10000));
  TRY_ASSIGN(j["hidden_size"], h.size("embedding_length"));
  TRY_ASSIGN(j["intermediate_size"], h.size("feed_forward_length"));
  TRY_ASSIGN(j["num_attention_heads"], h.size("attention.head_count"));
  j["hidden_act"] = "silu";
  TRY_ASSIGN(j["max_position_embeddings"], h.size("context_length"));
  TRY_ASSIGN(j["rms_norm_eps"], h.number("attention.layer_norm_rms_epsilon"));
  TRY_ASSIGN(j["rope_theta"], h.number("rope.freq_base", 10000.0));
  const GgufTensor* embedding = f.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    return fail(Code::kInvalidInput, "{}: has no matrix token_embd.weight", f.path());
  j["tie_word_embeddings"] = f.find("output.weight") == nullptr;
  j["vocab_size"] = embedding->shape[0];
  const auto id = [&](const char* name) -> Result<ordered_json> {
    if (!f.has(name)) return ordered_json(nullptr);
    TRY_ASSIGN(const int64_t v, f.integer(name, 0, embedding->shape[0] - 1));
    return ordered_json(v);
  };
  TRY_ASSIGN(j["bos_token_id"], id("tokenizer.ggml.bos_token_id"));
  TRY_ASSIGN(const std::vector<int64_t> ends, gguf_end_tokens(f, embedding->shape[0]));
  j["eos_token_id"] = ends.empty()       ? ordered_json(nullptr)
                      : ends.size() == 1 ? ordered_json(ends.front())
                                         : ordered_json(ends);
  return j;
}

/// How RoPE is stretched: its name, "none" where it is not; `silent` where the file does not say.
Result<std::string> rope_scaling_of(const Header& h,
                                    const std::vector<std::string>& known,
                                    const char* silent) {
  if (!h.has("rope.scaling.type")) return std::string(silent);
  TRY_ASSIGN(std::string type, h.file().text(h.key("rope.scaling.type")));
  if (type == "none" || std::find(known.begin(), known.end(), type) != known.end()) return type;
  return fail(
      Code::kInvalidInput,
      "{}: RoPE is stretched by {}, which Ferry does not read from GGUF files of {}; it reads {}",
      h.file().path(),
      printable(type),
      h.arch(),
      fmt::join(known, ", "));
}

/// How far RoPE is stretched; an older name of it counts where the newer is missing, 0 is none.
Result<double> rope_factor_of(const Header& h) {
  TRY_ASSIGN(const double older, h.number("rope.scale_linear", 1.0));
  TRY_ASSIGN(const double factor, h.number("rope.scaling.factor", older));
  return factor == 0 ? 1 : factor;
}

// What llama.cpp computes YaRN with for these architectures, whatever their headers say: it reads
// rope.scaling.yarn_* of others alone (of deepseek2 the logarithm's multiplier, below).
constexpr double kYarnBetaFast = 32, kYarnBetaSlow = 1;

/// By what YaRN makes the cosines and sines of llama and qwen2 larger there.
double yarn_growth(double factor) { return 0.1 * math::log(factor) + 1; }

/// Adds to `yarn` what all architectures have in the header. `context`: the positions of the model.
Result<void> add_yarn(const Header& h, int64_t context, ordered_json& yarn) {
  TRY_ASSIGN(yarn["factor"], rope_factor_of(h));
  yarn["beta_fast"] = kYarnBetaFast;
  yarn["beta_slow"] = kYarnBetaSlow;
  TRY_ASSIGN(const int64_t original, h.size("rope.scaling.original_context_length", context));
  yarn["original_max_position_embeddings"] = original == 0 ? context : original;
  return {};
}

/// Those of the header's values that llama.cpp does not read and that the model may have been made with: its converter
/// writes what config.json says.
Result<std::vector<std::string>> unread_yarn(const Header& h, bool deepseek) {
  std::vector<std::string> notes;
  TRY_ASSIGN(const double factor, rope_factor_of(h));
  if (!h.has("rope.scaling.type") || factor == 1) return notes;
  TRY_ASSIGN(const std::string type, h.file().text(h.key("rope.scaling.type")));
  if (type != "yarn") return notes;
  struct Value {
    const char* key;
    double computed, unset;  // what is computed with, and what stands for nothing
  };
  const Value values[] = {
      {"rope.scaling.yarn_beta_fast", kYarnBetaFast, kYarnBetaFast},
      {"rope.scaling.yarn_beta_slow", kYarnBetaSlow, kYarnBetaSlow},
      {"rope.scaling.yarn_ext_factor", 1, -1},
      {"rope.scaling.yarn_attn_factor", deepseek ? 1 : yarn_growth(factor), -1}};
  for (const Value& v : values) {
    TRY_ASSIGN(const double given, h.number(v.key, v.unset));
    // Files have numbers rounded to f32, and people write them with few digits.
    if (given == v.unset || std::fabs(given - v.computed) <= 1e-4) continue;
    notes.push_back(fmt::format(
        "its {} {} is not read, as by llama.cpp, which computes {} with {:.4g}: the model it was "
        "made from may have another RoPE",
        h.key(v.key),
        given,
        h.arch(),
        v.computed));
  }
  return notes;
}

/// Stretched RoPE of llama and qwen2, as config.json has it; null: it is not. As llama.cpp reads it: a factor without a
/// kind is linear, 1 is none; YaRN's cosines and sines grow by yarn_growth(), as those of a config.json that says
/// nothing of them.
Result<ordered_json> llama_scaling(const Header& h, int64_t context) {
  TRY_ASSIGN(const std::string kind, rope_scaling_of(h, {"linear", "yarn"}, "linear"));
  TRY_ASSIGN(const double factor, rope_factor_of(h));
  if (kind == "none" || factor == 1) return ordered_json(nullptr);
  if (kind == "linear") return ordered_json{{"rope_type", "linear"}, {"factor", factor}};
  ordered_json yarn = {{"rope_type", "yarn"}};
  TRY(add_yarn(h, context, yarn));
  return yarn;
}

/// What divides RoPE's frequencies pair by pair, as the parameters that config.json has; null: nothing does.
Result<ordered_json> factors_of(const GgufFile& f, int64_t head_dim, double theta) {
  const GgufTensor* factors = f.find(kRopeFactors);
  if (factors == nullptr) return ordered_json(nullptr);
  const int64_t count = factors->shape.count();
  if (count * 2 != head_dim)
    return fail(Code::kInvalidInput,
                "{}: {} has {} values for heads of {} columns",
                f.path(),
                kRopeFactors,
                count,
                head_dim);
  std::vector<float> values(static_cast<size_t>(count));
  decode_blocks(factors->type, f.bytes(*factors), values);
  const bool ones = std::all_of(values.begin(), values.end(), [](float v) { return v == 1; });
  const auto it = std::find_if(kLlamaScalings.begin(),
                               kLlamaScalings.end(),
                               [&](const LlamaScaling& s) { return agrees(s, theta, values); });
  // Short heads may turn so fast that Llama's factors are ones, too: then both are the same.
  if (it != kLlamaScalings.end() && !ones)
    return ordered_json{{"rope_type", "llama3"},
                        {"factor", it->factor},
                        {"low_freq_factor", it->low},
                        {"high_freq_factor", it->high},
                        {"original_max_position_embeddings", it->original}};
  if (ones) return ordered_json(nullptr);
  return fail(Code::kInvalidInput,
              "{}: {} holds factors that are neither Llama 3.1's nor 3.2's",
              f.path(),
              kRopeFactors);
}

/// Adds what llama and qwen2 have.
Result<void> add_llama_config(const Header& h, ordered_json& j) {
  const GgufFile& f = h.file();
  TRY_ASSIGN(const int64_t experts, h.size("expert_count", 0));
  if (experts > 0)
    return fail(Code::kInvalidInput,
                "{}: is a mixture of {} experts, which {} has not in Ferry",
                f.path(),
                experts,
                h.arch());
  const auto heads = j["num_attention_heads"].get<int64_t>();
  TRY_ASSIGN(j["num_key_value_heads"], h.size("attention.head_count_kv", heads));
  TRY_ASSIGN(const int64_t head_dim,
             h.size("attention.key_length", j["hidden_size"].get<int64_t>() / heads));
  for (const char* name : {"attention.value_length", "rope.dimension_count"})
    TRY(h.expect(name,
                 head_dim,
                 "Ferry runs models whose heads are turned whole and whose keys and values are as "
                 "wide"));
  TRY_ASSIGN(ordered_json scaling, llama_scaling(h, j["max_position_embeddings"].get<int64_t>()));
  TRY_ASSIGN(ordered_json factors, factors_of(f, head_dim, j["rope_theta"].get<double>()));
  if (!scaling.is_null() && !factors.is_null())
    return fail(Code::kInvalidInput,
                "{}: RoPE is stretched twice, by the header and by {}: Ferry has one of the two",
                f.path(),
                kRopeFactors);
  if (scaling.is_null()) scaling = std::move(factors);
  j["architectures"] =
      ordered_json::array({h.arch() == "llama" ? "LlamaForCausalLM" : "Qwen2ForCausalLM"});
  j["model_type"] = h.arch();
  j["head_dim"] = head_dim;
  j["rope_scaling"] = scaling;
  return {};
}

/// The gate. Files have no name for the way in which experts are chosen: it follows from what there
/// is, as DeepSeek's models have it.
Result<void> add_deepseek_gate(const Header& h, ordered_json& j) {
  constexpr int64_t kSoftmax = 1, kSigmoid = 2;
  TRY_ASSIGN(const int64_t gate, h.size("expert_gating_func", 0));
  if (gate != 0 && gate != kSoftmax && gate != kSigmoid)
    return fail(Code::kInvalidInput,
                "{}: \"{}\" is {}; Ferry has 1 (softmax) and 2 (sigmoid)",
                h.file().path(),
                h.key("expert_gating_func"),
                gate);
  const auto first = j["first_k_dense_replace"].get<int64_t>();
  const bool bias = h.file().find(fmt::format("blk.{}.exp_probs_b.bias", first)) != nullptr;
  TRY_ASSIGN(const int64_t groups, h.size("expert_group_count", 1));
  TRY_ASSIGN(const int64_t kept, h.size("expert_group_used_count", std::max<int64_t>(groups, 1)));
  TRY_ASSIGN(const bool norm, h.truth("expert_weights_norm", false));
  TRY_ASSIGN(const double scale, h.number("expert_weights_scale", 1.0));
  const bool sigmoid = gate == kSigmoid, grouped = groups > 1;
  j["model_type"] = sigmoid || bias || norm ? "deepseek_v3" : "deepseek_v2";
  j["scoring_func"] = sigmoid ? "sigmoid" : "softmax";
  j["topk_method"] = bias ? "noaux_tc" : grouped ? "group_limited_greedy" : "greedy";
  j["n_group"] = std::max<int64_t>(groups, 1);
  j["topk_group"] = std::max<int64_t>(kept, 1);
  j["norm_topk_prob"] = norm;
  j["routed_scaling_factor"] = scale == 0 ? 1 : scale;  // llama.cpp takes 0 for none
  return {};
}

/// How many of the blocks are the model's: those behind them, whose tensors say so or that the file leaves out, predict
/// further tokens (multi-token prediction), which no answer depends on.
Result<int64_t> layers_without_prediction(const Header& h, int64_t blocks) {
  TRY_ASSIGN(const int64_t predicting, h.size("nextn_predict_layers", 0));
  const int64_t first = blocks - predicting;
  if (predicting == 0 || first <= 0) return blocks;
  const auto& tensors = h.file().tensors();
  const std::string block = fmt::format("blk.{}.", first);
  const auto it = tensors.lower_bound(block);
  const bool left_out = it == tensors.end() || !it->first.starts_with(block);
  return left_out || h.file().find(block + "nextn.eh_proj.weight") != nullptr ? first : blocks;
}

/// Adds what DeepSeek V2, V3 and R1 have.
Result<void> add_deepseek_config(const Header& h, ordered_json& j) {
  TRY_ASSIGN(const int64_t rank, h.size("attention.kv_lora_rank"));
  TRY_ASSIGN(const int64_t turned, h.size("rope.dimension_count"));
  // Heads as attention sees them once the latent is absorbed, and, in older files, as they are.
  const bool absorbed = h.has("attention.key_length_mla");
  TRY_ASSIGN(const int64_t key,
             h.size(absorbed ? "attention.key_length_mla" : "attention.key_length"));
  TRY_ASSIGN(const int64_t value,
             h.size(absorbed ? "attention.value_length_mla" : "attention.value_length"));
  if (absorbed) {
    constexpr const char* kWhy = "in files with key_length_mla it is that of the absorbed form";
    TRY(h.expect("attention.key_length", rank + turned, kWhy));
    TRY(h.expect("attention.value_length", rank, kWhy));
    TRY(h.expect("attention.head_count_kv", 1, kWhy));
  }
  if (key <= turned)
    return fail(Code::kInvalidInput,
                "{}: keys have {} columns, of which RoPE turns {}; some must be left",
                h.file().path(),
                key,
                turned);
  TRY_ASSIGN(const int64_t q_rank, h.size("attention.q_lora_rank", 0));
  j["q_lora_rank"] = q_rank > 0 ? ordered_json(q_rank) : ordered_json(nullptr);
  j["kv_lora_rank"] = rank;
  j["qk_nope_head_dim"] = key - turned;
  j["qk_rope_head_dim"] = turned;
  j["v_head_dim"] = value;
  TRY_ASSIGN(j["first_k_dense_replace"], h.size("leading_dense_block_count", 0));
  int64_t experts = 0;
  if (h.has("expert_count")) {
    TRY_ASSIGN(experts, h.file().integer(h.key("expert_count"), 0, kExpertsStoredMax));
  }
  j["n_routed_experts"] = experts;
  if (experts > 0) {
    TRY_ASSIGN(j["moe_intermediate_size"], h.size("expert_feed_forward_length"));
    TRY_ASSIGN(j["num_experts_per_tok"], h.size("expert_used_count"));
    TRY_ASSIGN(j["n_shared_experts"], h.size("expert_shared_count", 0));
    TRY(add_deepseek_gate(h, j));
  } else {
    j["model_type"] = "deepseek_v3";
  }
  const bool v2 = j["model_type"] == "deepseek_v2";
  j["architectures"] =
      ordered_json::array({v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"});
  j["num_nextn_predict_layers"] = 0;
  TRY_ASSIGN(const std::string scaling, rope_scaling_of(h, {"yarn"}, ""));
  j["rope_scaling"] = nullptr;
  TRY_ASSIGN(const double factor, rope_factor_of(h));
  if (scaling == "none" || factor == 1) return {};
  if (scaling.empty())
    return fail(Code::kInvalidInput,
                "{}: \"{}\" is {} without the kind of stretching; Ferry reads yarn",
                h.file().path(),
                h.key("rope.scaling.factor"),
                factor);
  // A tenth of mscale_all_dim; of mscale DeepSeek's models, and llama.cpp, have the same. Source:
  // llama.cpp's converter and its reader of deepseek2. (What it computes where there is none, or 0, is no DeepSeek's:
  // cosines and sines that grow, and scores that grow as well.)
  constexpr const char* kMultiplier = "rope.scaling.yarn_log_multiplier";
  TRY_ASSIGN(const double tenth, h.number(kMultiplier));
  if (tenth == 0)
    return fail(Code::kInvalidInput,
                "{}: \"{}\" is 0, which no model of DeepSeek's has: make the file anew from the "
                "model's directory",
                h.file().path(),
                h.key(kMultiplier));
  const double mscale =
      std::strtod(fmt::format("{}", static_cast<float>(10 * tenth)).c_str(), nullptr);
  ordered_json yarn = {{"type", "yarn"}, {"mscale", mscale}, {"mscale_all_dim", mscale}};
  TRY(add_yarn(h, j["max_position_embeddings"].get<int64_t>(), yarn));
  j["rope_scaling"] = std::move(yarn);
  return {};
}

}  // namespace

Result<bool> is_gguf(const std::string& path) {
  TRY_ASSIGN(FileReader reader, FileReader::open(path));
  char magic[4] = {};
  TRY_ASSIGN(const size_t got, reader.read(magic, sizeof magic));
  return got == sizeof magic && std::memcmp(magic, "GGUF", 4) == 0;
}

Result<GgufModel> GgufModel::open(const std::string& path) {
  TRY_ASSIGN(GgufFile file, GgufFile::open(path));
  return of(std::move(file));
}

Result<GgufModel> GgufModel::of(GgufFile file) {
  GgufModel m;
  m.file_ = std::move(file);
  TRY(m.read_config());
  TRY(m.place_tensors());
  return m;
}

Result<void> GgufModel::read_config() {
  TRY_ASSIGN(const std::string arch, file_.text("general.architecture"));
  const bool deepseek = arch == "deepseek2";
  if (arch != "llama" && arch != "qwen2" && !deepseek)
    return fail(Code::kInvalidInput,
                "{}: holds a model of the architecture {}; Ferry runs llama, qwen2 and deepseek2 "
                "from GGUF files",
                path(),
                printable(arch));
  TRY(check_gguf_keys(file_, arch));
  const Header header(file_, arch);
  TRY_ASSIGN(ordered_json j, common_config(header));
  TRY(deepseek ? add_deepseek_config(header, j) : add_llama_config(header, j));
  blocks_ = j["num_hidden_layers"].get<int64_t>();
  if (deepseek) {
    TRY_ASSIGN(layers_, layers_without_prediction(header, blocks_));
    j["num_hidden_layers"] = layers_;
  }
  layers_ = j["num_hidden_layers"].get<int64_t>();
  experts_ = j.value("n_routed_experts", int64_t{0});
  if (arch == "llama") {
    turned_heads_ = j["num_attention_heads"].get<int64_t>();
    turned_kv_heads_ = j["num_key_value_heads"].get<int64_t>();
  }
  config_json_ = json_text(j, 2) + "\n";
  return {};
}

Result<void> GgufModel::place_tensors() {
  for (const auto& [name, tensor] : file_.tensors()) {
    if (name == kRopeFactors) continue;
    const auto unknown = [&, who = name] {
      return fail(Code::kInvalidInput,
                  "{}: the tensor {} is not part of the model that the header describes",
                  path(),
                  printable(who));
    };
    if (!name.starts_with("blk.")) {
      const auto it = std::find_if(kOutside.begin(),
                                   kOutside.end(),
                                   [&, who = name](const NamePair& p) { return who == p.gguf; });
      if (it == kOutside.end()) return unknown();
      TRY(add_place(it->hub, {.tensor = &tensor}));
      continue;
    }
    int64_t block = -1;
    const char* const end = name.data() + name.size();
    const auto [after, error] = std::from_chars(name.data() + 4, end, block);
    if (error != std::errc() || after == end || *after != '.' || block < 0 || block >= blocks_)
      return unknown();
    if (block >= layers_) continue;  // predicts further tokens
    const std::string_view rest(after + 1, static_cast<size_t>(end - after - 1));
    const std::string in_file = fmt::format("blk.{}.", block);
    if (rest == kValuesOfLatent && file_.find(in_file + std::string(kKeysOfLatent)) != nullptr)
      continue;  // placed with the keys
    const auto it = std::find_if(
        kInBlock.begin(), kInBlock.end(), [&](const NamePair& p) { return rest == p.gguf; });
    if (it == kInBlock.end()) return unknown();
    Place place{.tensor = &tensor};
    if (rest == kKeysOfLatent) {
      place.values = file_.find(in_file + std::string(kValuesOfLatent));
      TRY(check_latent(place, name));
    }
    if (rest.starts_with("attn_q.")) place.turned_heads = turned_heads_;
    if (rest.starts_with("attn_k.")) place.turned_heads = turned_kv_heads_;
    TRY(check_turned(place, name));
    TRY(add_place(fmt::format("model.layers.{}.{}", block, it->hub), place));
  }
  return {};
}

/// A stack of experts is one place for each.
Result<void> GgufModel::add_place(const std::string& hub_name, Place place) {
  const GgufTensor& t = *place.tensor;
  const bool stack = hub_name.find('*') != std::string::npos;
  if (t.shape.rank() != (stack || place.values != nullptr ? 3 : std::min(t.shape.rank(), 2)))
    return fail(Code::kInvalidInput,
                "{}: {} has the shape {}, another number of dimensions than it should",
                path(),
                printable(t.name),
                t.shape.str());
  // Before there is a name for each.
  if (stack && t.shape[0] != experts_)
    return fail(Code::kInvalidInput,
                "{}: {} is a stack of {} matrices, and the header tells of {} experts",
                path(),
                printable(t.name),
                t.shape[0],
                experts_);
  for (int64_t e = 0; e < (stack ? t.shape[0] : 1); ++e) {
    place.matrix = e;
    const std::string name = stack ? expert_name(hub_name, e) : hub_name;
    if (!places_.emplace(name, place).second)
      return fail(
          Code::kInvalidInput, "{}: holds {} twice, under two names", path(), printable(name));
  }
  return {};
}

Result<void> GgufModel::check_turned(const Place& place, const std::string& name) const {
  const GgufTensor& t = *place.tensor;
  if (place.turned_heads == 0) return {};
  if (t.shape[0] % (2 * place.turned_heads) != 0)
    return fail(Code::kInvalidInput,
                "{}: {} has {} rows for {} heads",
                path(),
                printable(name),
                t.shape[0],
                place.turned_heads);
  if (t.shape.rank() == 1 && block_of(t.type).elements > 1)
    return fail(Code::kInvalidInput,
                "{}: {} is stored as {}; a bias is read in F32, F16 or BF16",
                path(),
                printable(name),
                to_string(t.type));
  return {};
}

/// Keys [heads, latent, columns], turned over, and values [heads, columns, latent].
Result<void> GgufModel::check_latent(const Place& place, const std::string& name) const {
  const Shape& k = place.tensor->shape;
  if (place.values == nullptr)
    return fail(
        Code::kInvalidInput, "{}: has {} without {}", path(), printable(name), kValuesOfLatent);
  const Shape& v = place.values->shape;
  if (k.rank() == 3 && v.rank() == 3 && k[0] == v[0] && k[1] == v[2]) return {};
  return fail(Code::kInvalidInput,
              "{}: {} is {} and {} {}: they do not belong together",
              path(),
              printable(name),
              k.str(),
              kValuesOfLatent,
              v.str());
}

std::vector<std::string> GgufModel::names() const {
  std::vector<std::string> out;
  for (const auto& item : places_) out.push_back(item.first);
  return out;
}

std::string GgufModel::path_of(const std::string& file_name) const {
  return fmt::format("{} (as {})", path(), file_name);
}

std::optional<StoredTensor> GgufModel::stored(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) return std::nullopt;
  const GgufTensor& t = *it->second.tensor;
  return StoredTensor{shape_of(it->second), numbers_of(t.type).value_or(DType::kF32)};
}

const char* GgufModel::type_of(std::string_view name) const {
  const auto it = places_.find(name);
  check(it != places_.end(), "gguf: {} is none of its tensors", name);
  return to_string(it->second.tensor->type);
}

Result<Tensor> GgufModel::load_stacked(std::string_view name_with_star,
                                       int64_t experts,
                                       Device& device,
                                       DType want) {
  check(experts > 0, "load_stacked: {} of {} experts", name_with_star, experts);
  TRY_ASSIGN(const Place first, place_of(expert_name(name_with_star, 0)));
  if (places_.contains(expert_name(name_with_star, experts)))
    return fail(Code::kInvalidInput,
                "{}: {} holds more than the {} experts expected",
                file_.path_of(*first.tensor),
                printable(first.tensor->name),
                experts);
  const Rows all = rows_of(first);
  Tensor stack = Tensor::empty({experts, all.count, all.columns}, want, device);
  for (int64_t e = 0; e < experts; ++e) {
    TRY_ASSIGN(const Place place, place_of(expert_name(name_with_star, e)));
    TRY(decode(place, 0, stack.slice(0, e, e + 1)));
  }
  return stack;
}

Result<GgufModel::Place> GgufModel::place_of(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end())
    return fail(Code::kNotFound, "{}: has no tensor for {}", path(), printable(name));
  return it->second;
}

GgufModel::Rows GgufModel::rows_of(const Place& place) {
  const Shape& shape = place.tensor->shape;
  if (place.values != nullptr) return {shape[0] * (shape[2] + place.values->shape[1]), shape[1]};
  // A vector is one row, of blocks perhaps; one whose elements are turned, one of each.
  if (shape.rank() == 1) return place.turned_heads > 0 ? Rows{shape[0], 1} : Rows{1, shape[0]};
  return {shape[shape.rank() - 2], shape[shape.rank() - 1]};
}

Shape GgufModel::shape_of(const Place& place) {
  const Rows all = rows_of(place);
  return place.tensor->shape.rank() == 1 ? place.tensor->shape : Shape{all.count, all.columns};
}

std::span<const std::byte> GgufModel::row(const Place& place, int64_t to) const {
  const Rows all = rows_of(place);
  // llama.cpp turns neighbours of a head, (2i, 2i + 1); the hub's weights turn (i, i + half).
  int64_t from = to;
  if (place.turned_heads > 0) {
    const int64_t head = all.count / place.turned_heads, half = head / 2, in_head = to % head;
    from = to - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
  }
  return row_of_file(*place.tensor, place.matrix * all.count + from, all.columns);
}

std::span<const std::byte> GgufModel::row_of_file(const GgufTensor& t,
                                                  int64_t row,
                                                  int64_t columns) const {
  const std::span<const std::byte> bytes = file_.bytes(t);
  const size_t size = bytes.size() / static_cast<size_t>(t.shape.count() / columns);
  return bytes.subspan(static_cast<size_t>(row) * size, size);
}

void GgufModel::decode_rows(const Place& place, int64_t first, std::span<float> values) const {
  const auto columns = static_cast<size_t>(rows_of(place).columns);
  cpu_pool().parallel_for(static_cast<int64_t>(values.size() / columns), [&](int64_t i, int) {
    decode_blocks(place.tensor->type,
                  row(place, first + i),
                  values.subspan(static_cast<size_t>(i) * columns, columns));
  });
}

void GgufModel::decode_latent(const Place& place, int64_t first, std::span<float> values) const {
  const GgufTensor &k = *place.tensor, &v = *place.values;
  const int64_t latent = k.shape[1], keys = k.shape[2], head = keys + v.shape[1];
  const int64_t end = first + static_cast<int64_t>(values.size()) / latent;
  const int64_t first_head = first / head;
  cpu_pool().parallel_for((end + head - 1) / head - first_head, [&](int64_t i, int) {
    const int64_t h = first_head + i;
    std::vector<float> of_head(static_cast<size_t>(latent * keys));
    for (int64_t l = 0; l < latent; ++l)
      decode_blocks(
          k.type,
          row_of_file(k, h * latent + l, keys),
          std::span(of_head).subspan(static_cast<size_t>(l * keys), static_cast<size_t>(keys)));
    for (int64_t r = std::max(first, h * head); r < std::min(end, (h + 1) * head); ++r) {
      const auto to =
          values.subspan(static_cast<size_t>((r - first) * latent), static_cast<size_t>(latent));
      const int64_t in_head = r - h * head;
      if (in_head < keys)
        for (int64_t l = 0; l < latent; ++l)
          to[static_cast<size_t>(l)] = of_head[static_cast<size_t>(l * keys + in_head)];
      else
        decode_blocks(v.type, row_of_file(v, h * v.shape[1] + in_head - keys, latent), to);
    }
  });
}

/// Converts rows of plain numbers to those of a tensor in the CPU's memory, and gives the place of the
/// first that is not finite.
std::optional<size_t> GgufModel::copy_rows(const Place& place,
                                           DType stored,
                                           int64_t first,
                                           const Tensor& to) const {
  const int64_t rows = to.dim(0), columns = to.dim(1);
  const auto row_bytes = static_cast<size_t>(columns) * size_of(to.dtype());
  std::vector<std::optional<size_t>> bad(static_cast<size_t>(rows));
  cpu_pool().parallel_for(rows, [&](int64_t r, int) {
    const std::span<const std::byte> from = row(place, first + r);
    bad[static_cast<size_t>(r)] = first_not_finite(stored, from);
    convert_elements(stored,
                     from.data(),
                     to.dtype(),
                     static_cast<std::byte*>(to.data()) + static_cast<size_t>(r) * row_bytes,
                     static_cast<size_t>(columns));
  });
  for (size_t r = 0; r < bad.size(); ++r)
    if (bad[r]) return r * static_cast<size_t>(columns) + *bad[r];
  return std::nullopt;
}

Result<void> GgufModel::decode(const Place& place, int64_t first, const Tensor& to) const {
  const int64_t columns = rows_of(place).columns, rows = to.count() / columns;
  const int64_t step = std::max<int64_t>(1, kPieceElements / columns);
  const Tensor by_row = to.reshape({rows, columns});
  // Without a stop at f32 on the way: bf16 numbers of most files are bf16 in memory.
  const std::optional<DType> plain =
      place.values == nullptr && to.device().kind() == DeviceKind::kCpu
          ? numbers_of(place.tensor->type)
          : std::nullopt;
  std::vector<float> values;
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(rows, begin + step);
    const Tensor part = by_row.slice(0, begin, end);
    std::optional<size_t> bad;
    if (plain) {
      bad = copy_rows(place, *plain, first + begin, part);
    } else {
      values.resize(static_cast<size_t>((end - begin) * columns));
      place.values != nullptr ? decode_latent(place, first + begin, values)
                              : decode_rows(place, first + begin, values);
      bad = fill_from_finite(part, DType::kF32, std::as_bytes(std::span(values)));
    }
    if (bad)
      return fail(Code::kCorrupt,
                  "{}: {} holds a number that is not finite at row {}, column {}: the file is "
                  "damaged, or its quantisation went wrong",
                  file_.path_of(*place.tensor),
                  printable(place.tensor->name),
                  first + begin + static_cast<int64_t>(*bad) / columns,
                  static_cast<int64_t>(*bad) % columns);
    still_alive();
    file_.release();
  }
  return {};
}

Result<Tensor> GgufModel::load(std::string_view name, Device& device, DType want) {
  TRY_ASSIGN(const Place place, place_of(name));
  Tensor out = Tensor::empty(shape_of(place), want, device);
  TRY(decode(place, 0, out));
  return out;
}

Result<Tensor> GgufModel::load_rows(
    std::string_view name, int64_t first, int64_t rows, Device& device, DType want) {
  TRY_ASSIGN(const Place place, place_of(name));
  const Rows all = rows_of(place);
  check(0 <= first && 0 <= rows && rows <= all.count - first,
        "load_rows: {}, rows {} from {} on",
        name,
        rows,
        first);
  Tensor out = Tensor::empty({rows, all.columns}, want, device);
  TRY(decode(place, first, out));
  return out;
}

std::optional<WeightCodes> GgufModel::codes(std::string_view name) const {
  const auto it = places_.find(name);
  if (it == places_.end() || it->second.tensor->shape.rank() < 2 || it->second.values != nullptr)
    return std::nullopt;
  return codes_of(it->second.tensor->type);
}

Result<void> GgufModel::take_codes(std::string_view name, PanelsInMaking& panels, int64_t matrix) {
  TRY_ASSIGN(const Place place, place_of(name));
  const CodePanels& l = panels.layout();
  check(codes(name) == l.codes && rows_of(place).count == l.rows &&
            rows_of(place).columns == l.columns,
        "take_codes: {} as {} of [{}, {}]",
        name,
        to_string(l.codes),
        l.rows,
        l.columns);
  std::atomic<int64_t> bad = -1;
  const int64_t step = std::max<int64_t>(1, kPieceElements / (kPanelRows * l.columns));
  for (int64_t begin = 0; begin < l.panels(); begin += step) {
    cpu_pool().parallel_for(std::min(step, l.panels() - begin), [&](int64_t panel, int) {
      std::vector<int8_t> codes(static_cast<size_t>(l.columns));
      std::vector<uint8_t> scales(static_cast<size_t>(l.row_scale_bytes()));
      const int64_t first = (begin + panel) * kPanelRows,
                    end = std::min(l.rows, first + kPanelRows);
      for (int64_t r = first; r < end; ++r) {
        take_blocks(place.tensor->type, row(place, r), codes.data(), scales.data());
        if (!scales_are_finite(l.codes, scales)) bad = r;
        panels.put(matrix, r, codes.data(), scales.data());
      }
    });
    file_.release();
  }
  if (bad < 0) return {};
  return fail(Code::kCorrupt,
              "{}: {} has a scale that is not finite in row {}: the file is damaged, or its "
              "quantisation went wrong",
              file_.path_of(*place.tensor),
              printable(place.tensor->name),
              bad.load());
}

Result<std::string> GgufModel::weights_root(const HashedBytes& hashed) const {
  std::map<std::string, Digest> roots;
  for (const std::span<const std::byte> part : file_.all_bytes()) {
    TRY_ASSIGN(const std::vector<Digest> leaves, hash_chunks(part, hashed));
    const std::string name = roots.empty() ? "gguf" : fmt::format("gguf {:05}", roots.size() + 1);
    roots[name] = tree_root(leaves);
  }
  return root_of_weights(roots);
}

Result<std::optional<std::string>> GgufModel::optional_text(const std::string& file_name) {
  if (file_name == "tokenizer.json") return gguf_tokenizer_json(file_);
  if (file_name == "tokenizer_config.json") return tokenizer_config_json();
  return std::nullopt;
}

Result<std::vector<std::string>> GgufModel::reading_notes() const {
  TRY_ASSIGN(std::vector<std::string> notes, gguf_token_notes(file_));
  TRY_ASSIGN(const std::string arch, file_.text("general.architecture"));
  TRY_ASSIGN(std::vector<std::string> unread,
             unread_yarn(Header(file_, arch), arch == "deepseek2"));
  std::move(unread.begin(), unread.end(), std::back_inserter(notes));
  if (blocks_ > layers_)
    notes.push_back("its multi-token prediction is not read: the model is made without");
  return notes;
}

/// The names of its begin and end tokens, and its chat template.
Result<std::string> GgufModel::tokenizer_config_json() const {
  TRY_ASSIGN(const auto tokens,
             file_.value<std::vector<std::string>>("tokenizer.ggml.tokens", "a list of texts"));
  ordered_json j = ordered_json::object();
  // A file that names no end of text may name that of a turn or a message: what ends an answer is what a template is
  // given as its end token.
  for (const auto& [field, key] : {NamePair{"bos_token", "tokenizer.ggml.bos_token_id"},
                                   {"eos_token", "tokenizer.ggml.eos_token_id"},
                                   {"eos_token", "tokenizer.ggml.eot_token_id"},
                                   {"eos_token", "tokenizer.ggml.eom_token_id"}}) {
    if (!file_.has(key) || j.contains(field)) continue;
    TRY_ASSIGN(const int64_t id, file_.integer(key, 0, static_cast<int64_t>(tokens.size()) - 1));
    j[field] = tokens[static_cast<size_t>(id)];
  }
  TRY_ASSIGN(j["add_bos_token"], gguf_adds_bos(file_));
  if (file_.has("tokenizer.chat_template")) {
    TRY_ASSIGN(j["chat_template"], file_.text("tokenizer.chat_template"));
  }
  return json_text(j, 2) + "\n";
}

}  // namespace ferry
