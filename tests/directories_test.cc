// Model directories as the world lays them out: what Transformers 4 and 5, DeepSeek, Unsloth,
// LLaMA-Factory and the hub's cache write of one and the same small model. Each must open, answer
// with the same bits, and say the same of where text ends.
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/model_texts.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "ops/segments.h"
#include "probe/directory_model.h"
#include "tensor/bf16.h"

namespace ferry {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// A small V3 with one dense and one MoE layer, as DeepSeek's config.json has it.
Json v3_config() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 704,
    "hidden_size": 32, "num_hidden_layers": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "intermediate_size": 64, "moe_intermediate_size": 32, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": true,
    "routed_scaling_factor": 2.5, "num_attention_heads": 2, "num_key_value_heads": 2,
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": null,
    "max_position_embeddings": 256, "num_nextn_predict_layers": 1, "initializer_range": 0.02,
    "tie_word_embeddings": false, "attention_bias": false, "attention_dropout": 0.0,
    "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1, "use_cache": true})");
}

Json v2_config() {
  Json c = v3_config();
  c.update(Json::parse(R"({"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2",
    "q_lora_rank": null, "n_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
    "norm_topk_prob": false, "routed_scaling_factor": 1.0})"));
  c.erase("num_nextn_predict_layers");
  return c;
}

/// Two layers of Qwen2, tied, as its instruct models' config.json has it.
Json qwen2_config() {
  return Json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 0,
    "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
    "intermediate_size": 64, "max_position_embeddings": 256, "max_window_layers": 2,
    "model_type": "qwen2", "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
    "sliding_window": 128, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1", "use_cache": true, "use_sliding_window": false,
    "vocab_size": 704})");
}

Json llama_config() {
  Json c = qwen2_config();
  for (const char* name : {"max_window_layers", "sliding_window", "use_sliding_window"})
    c.erase(name);
  c.update(Json::parse(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
    "eos_token_id": [1, 2], "mlp_bias": false, "model_type": "llama", "pretraining_tp": 1,
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 64, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false})"));
  return c;
}

std::string tokenizer_text(const std::string& name) {
  return *read_file(std::string(FERRY_SOURCE_DIR) + "/testdata/tokenizer/" + name + ".json");
}

/// A directory in the making: files, and which tensors it holds in which form.
struct Layout {
  Json config;
  std::map<std::string, std::string> files;
  bool mtp_weights = false;
  bool tied_head_stored = false;
  DType stored = DType::kF32;
  uint64_t shard_bytes = uint64_t{1} << 30;
  bool hub_cache = false;                // files are links into blobs
  bool fused_experts = false;            // a layer's in one tensor
  std::vector<std::string> beside = {};  // tensors that no config asks for

  // What it says.
  std::optional<int32_t> bos = 0;
  bool begins = true;
  std::vector<int32_t> eos = {1};
  int notes = 0;
};

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("ferry_directories.{}", ::getpid())) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path path() const { return path_; }

 private:
  fs::path path_;
};

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// The model that every layout of this config holds: the same weights, whatever else is announced.
std::unique_ptr<models::TrainableLm> reference(Json config, bool mtp) {
  if (mtp) config["num_nextn_predict_layers"] = 1;
  if (!mtp) config.erase("num_nextn_predict_layers");
  const auto ours = models::fit_config(config.dump(), "reference", {});
  EXPECT_TRUE(ours);
  auto model = models::make_model(ours->json, "reference", cpu_device(), DType::kF32, DType::kF32);
  EXPECT_TRUE(model) << model.error().message;
  models::initialise(**model, 7);
  return *std::move(model);
}

/// The same, with the experts of each layer as Transformers 5 has them: stacks, of gate and up projection one.
std::vector<NamedTensor> with_fused_experts(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> fused;
  const auto stack_of = [&](const std::string& name) {
    return std::find_if(
               tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == name; })
        ->value;
  };
  for (const NamedTensor& t : tensors) {
    const size_t star = t.name.find(".*.");
    if (star == std::string::npos) {
      fused.push_back(t);
      continue;
    }
    const std::string experts = t.name.substr(0, star);
    if (t.name.ends_with("down_proj.weight"))
      fused.push_back({experts + ".down_proj", t.value, t.stored});
    if (!t.name.ends_with("gate_proj.weight")) continue;
    const std::vector<float> gate = t.value.to_f32(),
                             up = stack_of(experts + ".*.up_proj.weight").to_f32();
    const auto matrix = static_cast<ptrdiff_t>(t.value.dim(1) * t.value.dim(2));
    std::vector<float> both;
    for (ptrdiff_t e = 0; e < t.value.dim(0); ++e)
      for (const std::vector<float>* part : {&gate, &up})
        both.insert(both.end(), part->begin() + e * matrix, part->begin() + (e + 1) * matrix);
    fused.push_back(
        {experts + ".gate_up_proj",
         Tensor::from_f32(both, {t.value.dim(0), 2 * t.value.dim(1), t.value.dim(2)}, cpu_device()),
         t.stored});
  }
  return fused;
}

/// Writes the layout; returns the path that a user would give.
std::string make(const fs::path& folder, const Layout& l) {
  const auto model = reference(l.config, l.mtp_weights);
  ModelContents c;
  c.tensors = stored_weights(model->weights(), model->weight_aliases(), l.stored);
  if (l.tied_head_stored)
    for (const Weight* w : model->weights())
      if (w->name == "model.embed_tokens.weight")
        c.tensors.push_back({"lm_head.weight", w->value, l.stored});
  for (const std::string& name : l.beside)
    c.tensors.push_back(
        {name, Tensor::from_f32(std::vector<float>{1, 2}, {2}, cpu_device()), l.stored});
  if (l.fused_experts) c.tensors = with_fused_experts(c.tensors);
  c.texts[kConfigName] = l.config.dump(2);
  c.shard_bytes = l.shard_bytes;
  const std::string path = (folder / "model").string();
  const auto saved = write_model_dir(path, c);
  EXPECT_TRUE(saved) << saved.error().message;
  fs::remove(fs::path(path) / kChecksumsName);  // nobody else writes it
  for (const auto& [name, text] : l.files) write(fs::path(path) / name, text);
  if (!l.hub_cache) return path;
  // models--ORG--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH
  const std::string revision(40, 'a');
  const fs::path cache = folder / "hub" / "models--org--name";
  fs::create_directories(cache / "blobs");
  fs::create_directories(cache / "snapshots" / revision);
  write(cache / "refs" / "main", revision);
  int number = 0;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (!entry.is_regular_file()) continue;
    const std::string blob = fmt::format("{:064x}", ++number);
    fs::rename(entry.path(), cache / "blobs" / blob);
    fs::create_symlink(fs::path("../../blobs") / blob,
                       cache / "snapshots" / revision / entry.path().filename());
  }
  return (cache / "snapshots" / revision).string();
}

std::vector<float> logits_of(models::CausalLm& model) {
  const std::vector<int32_t> ids = {0, 17, 300, 5, 699, 42, 42, 1};
  const auto length = static_cast<int32_t>(ids.size());
  const Tensor hidden = model.forward(Tensor::from_i32(ids, {length}, model.device()),
                                      ops::Segments::packed({&length, 1}, model.device()),
                                      {},
                                      nullptr);
  std::vector<int64_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  return model.logits(hidden, rows).to_f32();
}

const char* const kTokenizerConfig = R"({"add_bos_token": true, "add_eos_token": false,
  "bos_token": {"__type": "AddedToken", "content": "<|bos|>", "lstrip": false, "normalized": true,
                "rstrip": false, "single_word": false},
  "clean_up_tokenization_spaces": false, "eos_token": {"__type": "AddedToken", "content": "<|eos|>",
  "lstrip": false, "normalized": true, "rstrip": false, "single_word": false},
  "legacy": true, "model_max_length": 131072, "pad_token": "<|pad|>", "sp_model_kwargs": {},
  "unk_token": null, "tokenizer_class": "LlamaTokenizerFast",
  "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"})";
const char* const kGenerationConfig =
    R"({"_from_model_config": true, "bos_token_id": 0, "eos_token_id": 1, "do_sample": true,
        "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.39.3"})";

/// What Transformers 4 adds to every config.json.
void transformers_4(Layout& l) {
  l.config.update(Json::parse(R"({"_name_or_path": "org/name", "torch_dtype": "float32",
    "transformers_version": "4.57.1", "pretraining_tp": 1, "head_dim": 8, "qk_head_dim": 24,
    "rope_interleave": true, "pad_token_id": null, "output_router_logits": false})"));
  for (const char* dropped : {"scoring_func", "topk_method", "moe_layer_freq"})
    if (l.config["model_type"] == "deepseek_v3") l.config.erase(dropped);
  l.files["generation_config.json"] = kGenerationConfig;
  l.files["tokenizer.json"] = tokenizer_text("deepseek");
  l.files["tokenizer_config.json"] = kTokenizerConfig;
  l.files["special_tokens_map.json"] =
      R"({"bos_token": {"content": "<|bos|>", "lstrip": false, "normalized": false,
          "rstrip": false, "single_word": false}, "eos_token": "<|eos|>", "pad_token": "<|pad|>"})";
}

void transformers_5(Layout& l) {
  transformers_4(l);
  l.config["dtype"] = l.config["torch_dtype"];
  l.config["transformers_version"] = "5.24.0";
  l.config["rope_parameters"] = {{"rope_theta", 10000.0}, {"rope_type", "default"}};
  for (const char* dropped : {"torch_dtype", "rope_theta", "rope_scaling", "_name_or_path"})
    l.config.erase(dropped);
  l.files.erase("special_tokens_map.json");
  l.files["chat_template.jinja"] = "{{ messages }}";
  Json tokenizer = Json::parse(l.files["tokenizer_config.json"]);
  tokenizer.erase("chat_template");
  tokenizer["backend"] = "tokenizers";
  l.files["tokenizer_config.json"] = tokenizer.dump();
}

void deepseek_release(Layout& l) {
  l.config.update(
      Json::parse(R"({"auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "ep_size": 1, "seq_aux": true, "aux_loss_alpha": 0.001, "pretraining_tp": 1,
    "torch_dtype": "bfloat16", "transformers_version": "4.33.1"})"));
  l.files["generation_config.json"] = kGenerationConfig;
  l.files["tokenizer.json"] = tokenizer_text("deepseek");
  l.files["tokenizer_config.json"] = kTokenizerConfig;
  l.files["configuration_deepseek.py"] = "class DeepseekV3Config: pass\n";
  l.files["modeling_deepseek.py"] = "class DeepseekV3ForCausalLM: pass\n";
  l.files["inference/configs/config_671B.json"] = "{}";
  l.files["figures/benchmark.png"] = "PNG";
  l.files["README.md"] = "# DeepSeek\n";
  l.files["LICENSE-MODEL"] = "...";
  l.files[".gitattributes"] = "*.safetensors filter=lfs\n";
}

std::map<std::string, Layout> layouts() {
  std::map<std::string, Layout> all;
  const auto add = [&](const std::string& name, Json config, auto&& fill) {
    Layout l{.config = std::move(config), .files = {}};
    fill(l);
    all.emplace(name, std::move(l));
  };
  add("transformers 4, V3: announces MTP, drops its weights", v3_config(), [](Layout& l) {
    transformers_4(l);
    l.notes = 1;
  });
  add("transformers 5, V3", v3_config(), [](Layout& l) {
    transformers_5(l);
    l.notes = 1;
  });
  add("transformers 5, V3, its own names", v3_config(), [](Layout& l) {
    transformers_5(l);
    l.fused_experts = true;
    l.notes = 1;
  });
  add("transformers 5, V2, its own names, in shards", v2_config(), [](Layout& l) {
    transformers_5(l);
    l.fused_experts = true;
    l.stored = DType::kBF16;
    l.shard_bytes = 20000;
  });
  add("transformers 4, V2, in shards", v2_config(), [](Layout& l) {
    transformers_4(l);
    l.shard_bytes = 40000;
  });
  add("transformers 5, V2, bf16", v2_config(), [](Layout& l) {
    transformers_5(l);
    l.config["num_nextn_predict_layers"] = nullptr;
    l.stored = DType::kBF16;
  });
  add("deepseek's release of V3, with MTP", v3_config(), [](Layout& l) {
    deepseek_release(l);
    l.mtp_weights = true;
    l.shard_bytes = 60000;
  });
  add("MTP weights that the config does not announce", v3_config(), [](Layout& l) {
    deepseek_release(l);
    l.mtp_weights = true;
    l.config.erase("num_nextn_predict_layers");
    l.notes = 1;
  });
  add("deepseek's release of V2-Lite, with its own tokenizer", v2_config(), [](Layout& l) {
    deepseek_release(l);
    l.files["tokenizer.json"] = tokenizer_text("deepseek_v2");
  });
  add("unsloth", v3_config(), [](Layout& l) {
    transformers_4(l);
    l.config.update(Json::parse(R"({"unsloth_fixed": true, "unsloth_version": "2025.9.1",
      "eos_token_id": [1, 2], "pad_token_id": 2, "num_nextn_predict_layers": 0})"));
    l.files["chat_template.jinja"] = "{% for m in messages %}{{ m.content }}{% endfor %}";
    Json tokenizer = Json::parse(l.files["tokenizer.json"]);  // as the trainer last used it
    tokenizer["padding"] = {{"strategy", "BatchLongest"}, {"pad_id", 2}, {"pad_token", "<|pad|>"}};
    tokenizer["truncation"] = {{"max_length", 2048}, {"strategy", "LongestFirst"}};
    l.files["tokenizer.json"] = tokenizer.dump();
    l.eos = {1, 2};
  });
  add("llama-factory", v3_config(), [](Layout& l) {
    transformers_4(l);
    l.config["num_nextn_predict_layers"] = 0;
    Json generation = Json::parse(l.files["generation_config.json"]);
    generation["eos_token_id"] = {1, 2};
    l.files["generation_config.json"] = generation.dump();
    l.files["added_tokens.json"] = R"({"<|pad|>": 2})";
    for (const char* extra : {"trainer_state.json", "all_results.json", "train_results.json"})
      l.files[extra] = "{}";
    l.files["training_args.bin"] = "PK";
    l.files["training_loss.png"] = "PNG";
    l.files["additional_chat_templates/tool_use.jinja"] = "{{ tools }}";
    l.eos = {1, 2};
  });
  add("the hub's cache: links into blobs", v2_config(), [](Layout& l) {
    deepseek_release(l);
    l.shard_bytes = 40000;
    l.hub_cache = true;
  });
  add("hf download --local-dir", v2_config(), [](Layout& l) {
    deepseek_release(l);
    l.files[".cache/huggingface/.gitignore"] = "*";
    l.files[".cache/huggingface/download/config.json.metadata"] = "abc\n";
  });
  add("a head stored beside the embedding it shares", v3_config(), [](Layout& l) {
    transformers_4(l);
    l.config["tie_word_embeddings"] = true;
    l.tied_head_stored = true;
    l.notes = 1;
  });
  add("fields that are null, begin and end tokens among them", v2_config(), [](Layout& l) {
    l.config.update(Json::parse(R"({"bos_token_id": null, "eos_token_id": null,
      "quantization_config": null, "sliding_window": null, "num_nextn_predict_layers": null,
      "rope_scaling": null, "attention_bias": null, "n_group": null, "topk_group": null})"));
    l.files["tokenizer.json"] = tokenizer_text("deepseek");
    l.bos = std::nullopt;
    l.begins = false;
    l.eos = {};
  });
  add("Qwen2's instruct models: no text begins with a token", qwen2_config(), [](Layout& l) {
    Json tokenizer = Json::parse(tokenizer_text("qwen2"));
    tokenizer["post_processor"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    l.files["tokenizer.json"] = tokenizer.dump();
    l.files["tokenizer_config.json"] =
        R"({"add_bos_token": false, "add_prefix_space": false, "bos_token": null,
            "eos_token": "<|pad|>", "model_max_length": 131072, "unk_token": null,
            "tokenizer_class": "Qwen2Tokenizer", "split_special_tokens": false})";
    l.files["generation_config.json"] = R"({"bos_token_id": 0, "pad_token_id": 0,
        "do_sample": true, "eos_token_id": [2, 1], "repetition_penalty": 1.1, "temperature": 0.7,
        "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0"})";
    l.stored = DType::kBF16;
    l.begins = false;
    l.eos = {2, 1};
  });
  add("DeepSeek's distilled Qwen", qwen2_config(), [](Layout& l) {
    l.config.update({{"eos_token_id", 1}, {"tie_word_embeddings", false}, {"use_mrope", false}});
    l.files["tokenizer.json"] = tokenizer_text("qwen2");
    l.files["tokenizer_config.json"] = kTokenizerConfig;
    l.files["generation_config.json"] = kGenerationConfig;
    l.stored = DType::kBF16;
    l.shard_bytes = 40000;
  });
  add("Llama 3.1: its tokenizer.json says how texts begin", llama_config(), [](Layout& l) {
    l.files["tokenizer.json"] = tokenizer_text("llama3");
    l.files["tokenizer_config.json"] =
        R"({"bos_token": "<|bos|>", "clean_up_tokenization_spaces": true, "eos_token": "<|eos|>",
            "model_input_names": ["input_ids", "attention_mask"], "model_max_length": 131072,
            "tokenizer_class": "PreTrainedTokenizerFast"})";
    l.shard_bytes = 40000;
    l.eos = {1, 2};
  });
  add("files beside it that are not what their names say", v2_config(), [](Layout& l) {
    transformers_4(l);
    const std::string pointer =
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4096\n";
    for (const char* name : {"tokenizer.model", "vocab.json", "chat_template.jinja"})
      l.files[name] = pointer;
    l.files["merges.txt"] = "<!DOCTYPE html><html>sign in</html>";
    l.files["added_tokens.json"] = "{";
    l.notes = 5;
  });
  add("added tokens that were edited where Transformers writes them, too",
      v2_config(),
      [](Layout& l) {
        transformers_4(l);
        Json config = Json::parse(l.files["tokenizer_config.json"]);
        config["added_tokens_decoder"] = {
            {"0", {{"content", "<|bos|>"}, {"special", true}}},    // as tokenizer.json has it
            {"5", {{"content", "<|eos|>"}, {"special", true}}},    // another id
            {"2", {{"content", "<|pad|>"}, {"special", false}}},   // special there
            {"900", {{"content", "<|new|>"}, {"special", true}}},  // not there
            {"901", 7}};
        l.files["tokenizer_config.json"] = config.dump();
        l.notes = 3;
      });
  add("texts that are to end with a token, too, as embedding models want it",
      v2_config(),
      [](Layout& l) {
        transformers_4(l);
        Json config = Json::parse(l.files["tokenizer_config.json"]);
        config["add_eos_token"] = true;
        l.files["tokenizer_config.json"] = config.dump();
        l.notes = 1;
      });
  // Transformers 5.23 begins the texts of the first, and not those of the second, whatever class and
  // model_type they name; Transformers 4 those of the second, if the class is Llama's.
  add("a begin token that tokenizer.json alone puts", v2_config(), [](Layout& l) {
    transformers_4(l);
    Json config = Json::parse(l.files["tokenizer_config.json"]);
    config["add_bos_token"] = false;
    l.files["tokenizer_config.json"] = config.dump();
    l.notes = 1;
  });
  add("a begin token that only add_bos_token puts", qwen2_config(), [](Layout& l) {
    Json tokenizer = Json::parse(tokenizer_text("qwen2"));
    tokenizer["post_processor"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    l.config["eos_token_id"] = 1;
    l.files["tokenizer.json"] = tokenizer.dump();
    l.files["tokenizer_config.json"] = kTokenizerConfig;
    l.notes = 1;
  });
  add("contradictions about end tokens", v2_config(), [](Layout& l) {
    transformers_4(l);
    l.config["eos_token_id"] = 5;  // generation_config.json and the tokenizer's files say 1
    l.eos = {5, 1};
    l.notes = 1;
  });
  return all;
}

TEST(Directories, OpenAndAnswerAlike) {
  const Folder folder;
  int number = 0;
  for (const auto& [name, layout] : layouts()) {
    SCOPED_TRACE(name);
    const std::string path = make(folder.path() / std::to_string(number++), layout);
    Result<ModelDir> dir = ModelDir::open(path);
    ASSERT_TRUE(dir) << dir.error().message;
    const auto opened = probe::model_of(*dir, cpu_device(), DType::kF32, true);
    ASSERT_TRUE(opened) << opened.error().message;
    const auto texts = read_model_texts(*dir);
    ASSERT_TRUE(texts) << texts.error().message;
    ASSERT_NE(texts->tokenizer, nullptr);
    EXPECT_EQ(texts->bos, layout.bos);
    EXPECT_EQ(texts->begins, layout.begins);
    EXPECT_EQ(texts->eos, layout.eos);
    std::string notes;
    for (const auto* list : {&opened->notes, &texts->notes})
      for (const std::string& n : *list) notes += n + "\n";
    EXPECT_EQ(std::count(notes.begin(), notes.end(), '\n'), layout.notes) << notes;
    EXPECT_EQ(opened->model->has_mtp(),
              layout.mtp_weights && layout.config.value("num_nextn_predict_layers", 0) == 1);

    const auto expected = reference(layout.config, layout.mtp_weights);
    if (layout.stored == DType::kBF16)
      for (Weight* w : expected->weights())
        if (w->value.rank() > 1) {
          std::vector<float> values = w->value.to_f32();
          for (float& v : values) v = bf16_to_f32(f32_to_bf16(v));
          w->value = Tensor::from_f32(values, w->value.shape(), cpu_device());
          w->changed();
        }
    EXPECT_EQ(logits_of(*opened->model), logits_of(*expected));
  }
  EXPECT_GE(number, 12);
}

/// The tensors of a small V3, written down from DeepSeek's release: no size occurs twice in a shape,
/// so that none can be the wrong way round. `codes`: stored as float8 in an FP8 release.
struct Stored {
  std::string name;
  std::vector<int64_t> shape;
  bool codes;
};

constexpr const char* kLiteralConfig = R"({"architectures": ["DeepseekV3ForCausalLM"],
  "model_type": "deepseek_v3", "vocab_size": 704, "hidden_size": 40, "num_hidden_layers": 2,
  "first_k_dense_replace": 1, "moe_layer_freq": 1, "intermediate_size": 72,
  "moe_intermediate_size": 36, "n_routed_experts": 4, "n_shared_experts": 2,
  "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 2.5,
  "num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 20, "kv_lora_rank": 28,
  "qk_nope_head_dim": 16, "qk_rope_head_dim": 6, "v_head_dim": 12, "rms_norm_eps": 1e-6,
  "rope_theta": 10000, "rope_scaling": null, "max_position_embeddings": 256,
  "num_nextn_predict_layers": 0, "tie_word_embeddings": false, "hidden_act": "silu"})";

std::vector<Stored> literal_tensors() {
  std::vector<Stored> all = {{"model.embed_tokens.weight", {704, 40}, false},
                             {"model.norm.weight", {40}, false},
                             {"lm_head.weight", {704, 40}, false}};
  const auto add = [&](const std::string& of, const std::vector<Stored>& tensors) {
    for (const Stored& t : tensors) all.push_back({of + t.name, t.shape, t.codes});
  };
  const auto mlp = [&](const std::string& of, int64_t width) {
    add(of,
        {{"gate_proj.weight", {width, 40}, true},
         {"up_proj.weight", {width, 40}, true},
         {"down_proj.weight", {40, width}, true}});
  };
  for (const std::string layer : {"model.layers.0.", "model.layers.1."})
    add(layer,
        {{"input_layernorm.weight", {40}, false},
         {"post_attention_layernorm.weight", {40}, false},
         {"self_attn.q_a_proj.weight", {20, 40}, true},
         {"self_attn.q_a_layernorm.weight", {20}, false},
         {"self_attn.q_b_proj.weight", {44, 20}, true},            // 2 * (16 + 6)
         {"self_attn.kv_a_proj_with_mqa.weight", {34, 40}, true},  // 28 + 6
         {"self_attn.kv_a_layernorm.weight", {28}, false},
         {"self_attn.kv_b_proj.weight", {56, 28}, true},  // 2 * (16 + 12)
         {"self_attn.o_proj.weight", {40, 24}, true}});   // 2 * 12
  mlp("model.layers.0.mlp.", 72);
  add("model.layers.1.mlp.gate.",
      {{"weight", {4, 40}, false}, {"e_score_correction_bias", {4}, false}});
  for (int e = 0; e < 4; ++e) mlp(fmt::format("model.layers.1.mlp.experts.{}.", e), 36);
  mlp("model.layers.1.mlp.shared_experts.", 72);
  return all;
}

/// Element i of the tensor of this number: 1, 1/2 or -1, in no pattern that a transposition keeps.
int kind_of(size_t tensor, size_t i) { return static_cast<int>((i * i + tensor) % 7 % 3); }

/// A directory made of bytes, by no writer of Ferry's: the names, shapes, types and order of elements
/// are DeepSeek's, in bf16 or as float8 with one scale, 2, for each block.
TEST(Directories, ADirectoryWrittenByHandHasItsNumbersWhereTheyBelong) {
  const std::vector<Stored> tensors = literal_tensors();
  for (const bool f8 : {false, true}) {
    const Folder folder;
    std::string header = "{", data;
    const auto put = [&](const std::string& name,
                         const char* dtype,
                         const std::vector<int64_t>& shape,
                         const std::string& bytes) {
      header += fmt::format(R"({}"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                            header.size() > 1 ? "," : "",
                            name,
                            dtype,
                            fmt::join(shape, ","),
                            data.size(),
                            data.size() + bytes.size());
      data += bytes;
    };
    const std::string bf16[] = {{'\x80', '\x3F'}, {'\0', '\x3F'}, {'\x80', '\xBF'}};
    const std::string codes[] = {"\x38", "\x30", "\xB8"};
    for (size_t t = 0; t < tensors.size(); ++t) {
      size_t count = 1;
      for (const int64_t d : tensors[t].shape) count *= static_cast<size_t>(d);
      const bool coded = f8 && tensors[t].codes;
      std::string bytes;
      for (size_t i = 0; i < count; ++i) bytes += (coded ? codes : bf16)[kind_of(t, i)];
      put(tensors[t].name, coded ? "F8_E4M3" : "BF16", tensors[t].shape, bytes);
      if (coded) put(tensors[t].name + "_scale_inv", "F32", {1, 1}, {'\0', '\0', '\0', '\x40'});
    }
    header += "}";
    std::string size(8, '\0');
    for (size_t i = 0; i < 8; ++i) size[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
    Json config = Json::parse(kLiteralConfig);
    if (f8)
      config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                       {"fmt", "e4m3"},
                                       {"quant_method", "fp8"},
                                       {"weight_block_size", {128, 128}}};
    write(folder.path() / "config.json", config.dump());
    write(folder.path() / "model.safetensors", size + header + data);

    Result<ModelDir> dir = ModelDir::open(folder.path().string());
    ASSERT_TRUE(dir) << dir.error().message;
    const auto model =
        models::make_model(config.dump(), "config", cpu_device(), DType::kF32, DType::kF32);
    ASSERT_TRUE(model) << model.error().message;
    const auto loaded = load_weights(*dir, cpu_device(), (*model)->weights(), {});
    ASSERT_TRUE(loaded) << loaded.error().message;
    std::map<std::string, std::vector<float>> values;
    for (const Weight* w : (*model)->weights()) values[w->name] = w->value.to_f32();
    for (size_t t = 0; t < tensors.size(); ++t) {
      // Experts lie in one tensor, one after the other.
      std::string name = tensors[t].name;
      size_t expert = 0;
      if (const size_t at = name.find("experts."); at != name.npos && name[at - 1] == '.') {
        expert = static_cast<size_t>(name[at + 8] - '0');
        name[at + 8] = '*';
      }
      const std::vector<float>& all = values[name];
      size_t count = 1;
      for (const int64_t d : tensors[t].shape) count *= static_cast<size_t>(d);
      ASSERT_GE(all.size(), (expert + 1) * count) << name;
      const float scale = f8 && tensors[t].codes ? 2.0f : 1.0f;
      const float numbers[] = {scale, scale / 2, -scale};
      for (size_t i = 0; i < count; ++i)
        ASSERT_EQ(all[expert * count + i], numbers[kind_of(t, i)]) << tensors[t].name << " " << i;
    }
  }
}

/// What is not certain stays refused.
TEST(Directories, WhatDoesNotFitIsRefusedByName) {
  const Folder folder;
  int number = 0;
  const auto refusal = [&](Layout l, auto&& spoil) {
    const std::string path = make(folder.path() / std::to_string(number++), l);
    spoil(fs::path(path));
    Result<ModelDir> dir = ModelDir::open(path);
    if (!dir) return dir.error().message;
    const auto opened = probe::model_of(*dir, cpu_device(), DType::kF32, true);
    // Who converts, or verifies layer by layer, refuses the same.
    const auto looked_at = probe::model_of(*dir, cpu_device(), DType::kF32, false);
    EXPECT_EQ(opened ? "" : opened.error().message, looked_at ? "" : looked_at.error().message);
    if (!opened) return opened.error().message;
    const auto texts = read_model_texts(*dir);
    return texts ? std::string() : texts.error().message;
  };
  const auto nothing = [](const fs::path&) {};
  Layout half{.config = v3_config(), .files = {}, .mtp_weights = true};
  const auto set = [](const char* name, const Json& value) {
    return [=](const fs::path& path) {
      Json config = Json::parse(*read_file(path / kConfigName));
      config[name] = value;
      write(path / kConfigName, config.dump());
    };
  };
  EXPECT_EQ(refusal(half, nothing), "");
  // A layer too many is no multi-token prediction; nor is one too few.
  Layout v2{.config = v2_config(), .files = {}};
  EXPECT_NE(refusal(v2, set("num_hidden_layers", 1)).find("model.layers.1"), std::string::npos);
  EXPECT_NE(refusal(v2, set("num_hidden_layers", 3)).find("model.layers.2"), std::string::npos);
  // Nor are there experts beyond those of the config.
  for (const char* name : {"model.layers.1.mlp.experts.4.up_proj.weight",
                           "model.layers.0.self_attn.q_a_proj.bias",
                           "model.layers.0.mlp.up_proj.weight_scale_inv"}) {
    Layout more = half;
    more.beside = {name};
    EXPECT_NE(refusal(more, nothing).find(name), std::string::npos) << name;
  }
  EXPECT_NE(refusal(v2, set("a_field_of_tomorrow", 1)).find("a_field_of_tomorrow"),
            std::string::npos);
  EXPECT_NE(refusal(v2, set("eos_token_id", Json::array({1, "x"}))).find("eos_token_id"),
            std::string::npos);
  // Numbers that Python writes and JSON has not hurt whoever reads them, and nobody else.
  const auto put = [](const char* file, const char* name, const char* value) {
    return [=](const fs::path& path) {
      Json json = Json::parse(read_file(path / file).value_or(R"({"transformers_version": "4"})"));
      json.erase(name);
      std::string text = json.dump();
      text.insert(text.rfind('}'), fmt::format(R"(, "{}": {})", name, value));
      write(path / file, text);
    };
  };
  for (const auto& [file, name, value] :
       {std::tuple("config.json", "length_penalty", "NaN"),
        std::tuple("config.json", "id2label", R"({"0": 1e999, "NaN": [-Infinity]})"),
        std::tuple("generation_config.json", "length_penalty", "Infinity"),
        std::tuple("tokenizer_config.json", "model_max_length", "Infinity")})
    EXPECT_EQ(refusal(v2, put(file, name, value)), "") << file;
  for (const auto& [file, name, value] :
       {std::tuple("config.json", "rms_norm_eps", "NaN"),
        std::tuple("config.json", "rope_theta", "Infinity"),
        std::tuple("config.json", "hidden_size", "-Infinity"),
        std::tuple("config.json", "a_field_of_tomorrow", "NaN"),
        std::tuple("generation_config.json", "temperature", "NaN")}) {
    const std::string said = refusal(v2, put(file, name, value));
    EXPECT_NE(said.find(fmt::format("{}: \"{}\": \"{} (not finite)\"", file, name, value)),
              std::string::npos)
        << said;
  }
  // A shared head that is another than the embedding.
  Layout tied{.config = v2_config(), .files = {}};
  EXPECT_NE(refusal(tied, set("tie_word_embeddings", true)).find("lm_head.weight"),
            std::string::npos);
  // Files of text that cannot be read are not passed over.
  for (const char* name : {"generation_config.json", "tokenizer_config.json", "tokenizer.json"})
    EXPECT_NE(refusal(v2,
                      [&](const fs::path& path) {
                        write(path / "tokenizer.json", tokenizer_text("deepseek"));
                        write(path / name, "{");
                      })
                  .find(name),
              std::string::npos)
        << name;
}

}  // namespace
}  // namespace ferry
