#include "checkpoint/gguf_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/math.h"
#include "checkpoint/convert.h"
#include "checkpoint/gguf_keys.h"
#include "checkpoint/gguf_tokenizer.h"
#include "device/cpu/cpu_device.h"

namespace ferry {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kSizeMax = int64_t{1} << 24;

struct NamePair {
  const char* gguf;
  const char* hub;
};

constexpr std::array<NamePair, 3> kOutside = {{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
}};

/// After "blk.N." and "model.layers.N.".
constexpr std::array<NamePair, 12> kInBlock = {{
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
}};

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
  const GgufFile& f = file_;
  TRY_ASSIGN(const std::string arch, f.text("general.architecture"));
  if (arch != "llama" && arch != "qwen2")
    return fail(
        Code::kInvalidInput,
        "{}: holds a model of the architecture {}; Ferry runs llama and qwen2 from GGUF files",
        path(),
        printable(arch));
  const auto key = [&](const char* name) { return arch + "." + name; };
  const auto size = [&](const char* name) { return f.integer(key(name), 1, kSizeMax); };
  if (f.has(key("expert_count"))) {
    TRY_ASSIGN(const int64_t experts, f.integer(key("expert_count"), 0, kSizeMax));
    if (experts > 0)
      return fail(Code::kInvalidInput,
                  "{}: is a mixture of {} experts, which {} has not in Ferry",
                  path(),
                  experts,
                  arch);
  }
  TRY(check_gguf_keys(f, arch));
  TRY_ASSIGN(layers_, f.integer(key("block_count"), 1, 10000));
  TRY_ASSIGN(const int64_t hidden, size("embedding_length"));
  TRY_ASSIGN(const int64_t inner, size("feed_forward_length"));
  TRY_ASSIGN(const int64_t context, size("context_length"));
  TRY_ASSIGN(heads_, size("attention.head_count"));
  kv_heads_ = heads_;
  if (f.has(key("attention.head_count_kv"))) {
    TRY_ASSIGN(kv_heads_, size("attention.head_count_kv"));
  }
  int64_t head_dim = hidden / heads_;
  for (const char* name :
       {"attention.key_length", "attention.value_length", "rope.dimension_count"}) {
    if (!f.has(key(name))) continue;
    TRY_ASSIGN(const int64_t n, size(name));
    if (std::string_view(name) == "attention.key_length") head_dim = n;
    if (n != head_dim)
      return fail(Code::kInvalidInput,
                  "{}: \"{}\" is {}, heads have {} columns: Ferry runs models whose heads are "
                  "turned whole and whose "
                  "keys and values are as wide",
                  path(),
                  key(name),
                  n,
                  head_dim);
  }
  TRY_ASSIGN(const double eps, f.number(key("attention.layer_norm_rms_epsilon")));
  double theta = 10000;
  if (f.has(key("rope.freq_base"))) {
    TRY_ASSIGN(theta, f.number(key("rope.freq_base")));
  }
  const GgufTensor* embedding = f.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.rank() != 2)
    return fail(Code::kInvalidInput, "{}: has no matrix token_embd.weight", path());
  ordered_json scaling = nullptr;
  if (f.has(key("rope.scaling.type"))) {
    TRY_ASSIGN(const std::string type, f.text(key("rope.scaling.type")));
    if (type != "none")
      return fail(Code::kInvalidInput,
                  "{}: RoPE is stretched by {}, which Ferry does not read from GGUF files",
                  path(),
                  printable(type));
  }
  if (const GgufTensor* factors = f.find(kRopeFactors)) {
    std::vector<float> values(static_cast<size_t>(factors->shape.count()));
    if (values.size() * 2 != static_cast<size_t>(head_dim))
      return fail(Code::kInvalidInput,
                  "{}: {} has {} values for heads of {} columns",
                  path(),
                  kRopeFactors,
                  values.size(),
                  head_dim);
    decode_blocks(factors->type, f.bytes(*factors), values);
    const auto it = std::find_if(kLlamaScalings.begin(),
                                 kLlamaScalings.end(),
                                 [&](const LlamaScaling& s) { return agrees(s, theta, values); });
    if (it == kLlamaScalings.end())
      return fail(Code::kInvalidInput,
                  "{}: {} holds factors that are neither Llama 3.1's nor 3.2's",
                  path(),
                  kRopeFactors);
    scaling = {{"rope_type", "llama3"},
               {"factor", it->factor},
               {"low_freq_factor", it->low},
               {"high_freq_factor", it->high},
               {"original_max_position_embeddings", it->original}};
  }
  ordered_json j;
  j["architectures"] =
      ordered_json::array({arch == "llama" ? "LlamaForCausalLM" : "Qwen2ForCausalLM"});
  j["model_type"] = arch;
  j["hidden_size"] = hidden;
  j["intermediate_size"] = inner;
  j["num_hidden_layers"] = layers_;
  j["num_attention_heads"] = heads_;
  j["num_key_value_heads"] = kv_heads_;
  j["head_dim"] = head_dim;
  j["hidden_act"] = "silu";
  j["max_position_embeddings"] = context;
  // The file has it rounded to f32; written as the number that was meant.
  j["rms_norm_eps"] = std::strtod(fmt::format("{}", static_cast<float>(eps)).c_str(), nullptr);
  j["rope_theta"] = theta;
  j["rope_scaling"] = scaling;
  j["tie_word_embeddings"] = f.find("output.weight") == nullptr;
  j["vocab_size"] = embedding->shape[0];
  const auto id = [&](const char* name) -> Result<ordered_json> {
    if (!f.has(name)) return ordered_json(nullptr);
    TRY_ASSIGN(const int64_t v, f.integer(name, 0, embedding->shape[0] - 1));
    return ordered_json(v);
  };
  TRY_ASSIGN(j["bos_token_id"], id("tokenizer.ggml.bos_token_id"));
  TRY_ASSIGN(j["eos_token_id"], id("tokenizer.ggml.eos_token_id"));
  TRY_ASSIGN(ordered_json turn_end, id("tokenizer.ggml.eot_token_id"));
  if (j["eos_token_id"].is_null())
    j["eos_token_id"] = turn_end;
  else if (!turn_end.is_null() && turn_end != j["eos_token_id"])
    j["eos_token_id"] = ordered_json::array({j["eos_token_id"], turn_end});
  config_json_ = json_text(j, 2) + "\n";
  return {};
}

Result<void> GgufModel::place_tensors() {
  const bool turned = file_.text("general.architecture").value() == "llama";
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
      places_.emplace(it->hub, Place{&tensor, 0});
      continue;
    }
    int64_t block = -1;
    const char* const end = name.data() + name.size();
    const auto [after, error] = std::from_chars(name.data() + 4, end, block);
    if (error != std::errc() || after == end || *after != '.' || block < 0 || block >= layers_)
      return unknown();
    const std::string_view rest(after + 1, static_cast<size_t>(end - after - 1));
    const auto it = std::find_if(
        kInBlock.begin(), kInBlock.end(), [&](const NamePair& p) { return rest == p.gguf; });
    if (it == kInBlock.end()) return unknown();
    const int64_t heads = !turned                       ? 0
                          : rest.starts_with("attn_q.") ? heads_
                          : rest.starts_with("attn_k.") ? kv_heads_
                                                        : 0;
    if (heads > 0 && tensor.shape[0] % (2 * heads) != 0)
      return fail(Code::kInvalidInput,
                  "{}: {} has {} rows for {} heads",
                  path(),
                  printable(name),
                  tensor.shape[0],
                  heads);
    places_.emplace(fmt::format("model.layers.{}.{}", block, it->hub), Place{&tensor, heads});
  }
  return {};
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
  return StoredTensor{t.shape,
                      t.type == GgufType::kBF16  ? DType::kBF16
                      : t.type == GgufType::kF16 ? DType::kF16
                                                 : DType::kF32};
}

Result<Tensor> GgufModel::load_stacked(std::string_view name, int64_t, Device&, DType) {
  return fail(Code::kNotFound, "{}: has no experts for {}", path(), printable(name));
}

Result<Tensor> GgufModel::load(std::string_view name, Device& device, DType want) {
  const auto it = places_.find(name);
  if (it == places_.end())
    return fail(Code::kNotFound, "{}: has no tensor for {}", path(), printable(name));
  const GgufTensor& t = *it->second.tensor;
  const int64_t rows =
      t.shape.rank() > 1 ? t.shape.count() / t.shape[t.shape.rank() - 1] : t.shape[0];
  const int64_t columns = t.shape.count() / rows;
  const std::span<const std::byte> bytes = file_.bytes(t);
  // A vector of quantised blocks is one row.
  const bool one_row = t.shape.rank() == 1;
  std::vector<float> values(static_cast<size_t>(t.shape.count()));
  const int64_t pieces = one_row ? 1 : rows;
  const size_t piece = values.size() / static_cast<size_t>(pieces);
  cpu_pool().parallel_for(pieces, [&](int64_t row, int) {
    // llama.cpp turns neighbours of a head, (2i, 2i + 1); the hub's weights turn (i, i + half).
    int64_t to = row;
    if (it->second.turned_heads > 0) {
      const int64_t head = rows / it->second.turned_heads, in_head = row % head;
      to = row - in_head + in_head % 2 * (head / 2) + in_head / 2;
    }
    const size_t stored = bytes.size() / static_cast<size_t>(pieces);
    decode_blocks(t.type,
                  bytes.subspan(static_cast<size_t>(row) * stored, stored),
                  std::span(values).subspan(static_cast<size_t>(to) * piece, piece));
  });
  const auto bad =
      std::find_if_not(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
  if (bad != values.end())
    return fail(Code::kCorrupt,
                "{}: {} decodes to {} at row {}, column {}: the file is damaged, or its "
                "quantisation went wrong",
                path(),
                printable(t.name),
                static_cast<double>(*bad),
                (bad - values.begin()) / columns,
                (bad - values.begin()) % columns);
  Tensor out = Tensor::empty(t.shape, want, device);
  fill_from(out, DType::kF32, std::as_bytes(std::span(values)));
  return out;
}

Result<std::optional<std::string>> GgufModel::optional_text(const std::string& file_name) {
  if (file_name == "tokenizer.json") return gguf_tokenizer_json(file_);
  if (file_name == "tokenizer_config.json") return tokenizer_config_json();
  return std::nullopt;
}

/// The names of its begin and end tokens, and its chat template.
Result<std::string> GgufModel::tokenizer_config_json() const {
  TRY_ASSIGN(const auto tokens,
             file_.value<std::vector<std::string>>("tokenizer.ggml.tokens", "a list of texts"));
  ordered_json j = ordered_json::object();
  for (const auto& [field, key] : {NamePair{"bos_token", "tokenizer.ggml.bos_token_id"},
                                   {"eos_token", "tokenizer.ggml.eos_token_id"}}) {
    if (!file_.has(key)) continue;
    TRY_ASSIGN(const int64_t id, file_.integer(key, 0, static_cast<int64_t>(tokens.size()) - 1));
    j[field] = tokens[static_cast<size_t>(id)];
  }
  if (file_.has("tokenizer.ggml.add_bos_token")) {
    TRY_ASSIGN(j["add_bos_token"],
               file_.value<bool>("tokenizer.ggml.add_bos_token", "true or false"));
  } else {  // llama.cpp's own rule where the file is silent
    j["add_bos_token"] = file_.text("tokenizer.ggml.pre").value_or("") == "llama-bpe";
  }
  if (file_.has("tokenizer.chat_template")) {
    TRY_ASSIGN(j["chat_template"], file_.text("tokenizer.chat_template"));
  }
  return json_text(j, 2) + "\n";
}

}  // namespace ferry
