#include "train/model_setup.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/input_file.h"
#include "base/json.h"
#include "base/python_json.h"
#include "base/shell.h"
#include "checkpoint/chat_renderer.h"
#include "checkpoint/gguf.h"
#include "checkpoint/model_chat.h"
#include "checkpoint/passport.h"
#include "checkpoint/weights.h"
#include "device/stand_in_device.h"
#include "models/registry.h"
#include "probe/directory_model.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kModelTable =
    "[model]";  // what messages call a config.json that settings make

struct Preset {
  const char* name;
  const char* config;
};

// small: the demo's model, about 10 M parameters. medium: about 100 M, for measuring speed.
constexpr Preset kPresets[] = {
    {"small",
     R"({"model_type": "deepseek_v3", "hidden_size": 192, "num_hidden_layers": 4, "first_k_dense_replace": 1,
      "intermediate_size": 512, "moe_intermediate_size": 64, "n_routed_experts": 48, "n_shared_experts": 2,
      "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
      "norm_topk_prob": true, "routed_scaling_factor": 1.0, "num_attention_heads": 4, "q_lora_rank": null,
      "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 48, "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0, "num_nextn_predict_layers": 1,
      "initializer_range": 0.02, "tie_word_embeddings": false})"},
    {"medium",
     R"({"model_type": "deepseek_v3", "hidden_size": 768, "num_hidden_layers": 12, "first_k_dense_replace": 1,
      "intermediate_size": 2048, "moe_intermediate_size": 96, "n_routed_experts": 32, "n_shared_experts": 2,
      "num_experts_per_tok": 4, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
      "norm_topk_prob": true, "routed_scaling_factor": 1.0, "num_attention_heads": 12, "q_lora_rank": 384,
      "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "rms_norm_eps": 1e-6,
      "rope_theta": 10000.0, "num_nextn_predict_layers": 1,
      "initializer_range": 0.02, "tie_word_embeddings": false})"},
};

Result<Json> base_config(const ModelSettings& settings, const InitModel* init) {
  if (init != nullptr) return Json::parse(init->config.json);
  if (!settings.config.empty()) {
    const std::string& path = settings.config;
    std::string text = settings.config_text.value_or("");
    if (!settings.config_text) {
      TRY_ASSIGN(text, read_input(path, kConfigJsonBytesMax));
    }
    TRY_ASSIGN(const nlohmann::json json, parse_python_json(text, path));
    if (!json.is_object()) return fail(Code::kInvalidInput, "{}: must be a JSON object", path);
    return Json(json);
  }
  for (const Preset& p : kPresets)
    if (settings.preset == p.name) return Json::parse(p.config);
  if (settings.preset.empty()) return Json{{"model_type", "deepseek_v3"}};
  return fail(Code::kInvalidInput,
              "model.preset \"{}\": there is none of this name; use {}",
              settings.preset,
              preset_names());
}

}  // namespace

Result<nlohmann::ordered_json> named_architecture(const ModelSettings& settings) {
  if (settings.preset.empty() && settings.config.empty()) return Json::object();
  return base_config(settings, nullptr);
}

std::string preset_names() {
  std::string names;
  for (const Preset& p : kPresets) names += (names.empty() ? "" : ", ") + std::string(p.name);
  return names;
}

Result<InitModel> InitModel::open(const std::string& path) {
  TRY_ASSIGN(std::unique_ptr<ModelSource> source, open_model_source(path));
  if (const std::optional<std::string> name = stored_as_codes(*source))
    return fail(
        Code::kInvalidInput,
        "model.init {}: tensor \"{}\" is stored as whole numbers, which training does not "
        "change; begin from the model that was quantised, or from what ferry convert {} --to "
        "bf16 --out DIR makes",
        path,
        *name,
        path);
  TRY_ASSIGN(models::FittedConfig config, probe::fit_to(*source));
  TRY_ASSIGN(ModelTexts texts, read_model_texts(*source));
  return InitModel{std::move(source), std::move(config), std::move(texts)};
}

Result<std::string> state_of_init(const std::string& path) {
  std::vector<std::string> files;
  if (is_folder(path)) {
    TRY_ASSIGN(files, files_that_count(path));
    for (std::string& name : files) name = join_path(path, name);
  } else {
    TRY_ASSIGN(const GgufFile opened,
               GgufFile::open(path));  // its name does not say whether it has others
    files = opened.files();
  }
  std::string state;
  for (const std::string& file : files) {
    TRY_ASSIGN(const uint64_t bytes, file_size(file));
    std::error_code error;
    const auto written = std::filesystem::last_write_time(file, error);
    if (error) return fail(Code::kUnavailable, "{}: {}", file, error.message());
    state += fmt::format("{} {} {}\n", file, bytes, written.time_since_epoch().count());
  }
  return state;
}

std::vector<std::string> InitModel::notes(const RunData& data) const {
  std::vector<std::string> all = config.notes;
  all.insert(all.end(), texts.notes.begin(), texts.notes.end());
  const auto note = [&](const std::string& what) {
    all.push_back(fmt::format("{}: {}", source->path(), what));
  };
  if (const Result<void> chats = ChatRenderer::check(texts, source->path());
      !chats && chats.error().code != Code::kNotFound)
    all.push_back(fmt::format("{}; it goes along as it is, and what is trained will refuse to chat",
                              chats.error().message));
  if (texts.tokenizer == nullptr)
    note(fmt::format("has no {}: whether the data's ids mean the same to it cannot be told",
                     kTokenizerName));
  const auto text_of = [&](int32_t id) {
    return fmt::format("{} ({})", id, printable(data.tokenizer->token_bytes(id)));
  };
  if (!texts.eos.empty() && texts.eos[0] != data.eos)
    note(
        fmt::format("its texts end with {}, the data's with {}: from now on they end with the "
                    "latter, and generation stops at each",
                    text_of(texts.eos[0]),
                    text_of(data.eos)));
  if (texts.bos && *texts.bos != data.bos)
    note(fmt::format("its texts begin with {}, the data's with {}: the latter is what it learns",
                     text_of(*texts.bos),
                     text_of(data.bos)));
  return all;
}

Result<void> InitModel::check_data(const RunData& data,
                                   std::vector<std::string>* notes_of_going_on) const {
  if (!data.chat_template_blake2b.empty()) {
    TRY_ASSIGN(const std::string chat, chat_fingerprint(texts, source->path()));
    TRY_ASSIGN(const std::string templates, chat_templates_fingerprint(texts, source->path()));
    const bool same = chat == data.chat_template_blake2b;
    const bool before = notes_of_going_on != nullptr && templates == data.chat_template_blake2b;
    if (!same && !before)
      return fail(Code::kInvalidInput,
                  "{} {}: its conversations are written by another chat template, or with other "
                  "special tokens, than model.init's, {}; prepare them with --chat {}",
                  data.setting,
                  data.place,
                  source->path(),
                  shell_quoted(source->path()));
    if (!same) {
      TRY_ASSIGN(const std::string all, chat_templates_of(texts, source->path()));
      notes_of_going_on->push_back(fmt::format(
          "{} {}: its conversations were written when model.init's template, {}'s, was given other "
          "special tokens than now ({}); the run goes on with them as they are",
          data.setting,
          data.place,
          source->path(),
          tokens_given_otherwise(texts, all)));
    }
  }
  if (texts.tokenizer == nullptr && has_older_tokenizer(texts))
    return fail(
        Code::kInvalidInput,
        "model.init {}: has its tokenizer in an older form only, and whether {} {} was prepared "
        "with it cannot be told; AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR) writes "
        "its {}: prepare the data with that, or, if the data is this model's, remove the older "
        "files",
        source->path(),
        data.setting,
        data.place,
        kTokenizerName);
  if (texts.tokenizer == nullptr) return {};
  const auto difference = texts.tokenizer->difference_from(*data.tokenizer);
  if (!difference) return {};
  return fail(Code::kInvalidInput,
              "{} {}: was prepared with another tokenizer than model.init's, {} ({}); ids "
              "would mean something else to the model: prepare the data with {}",
              data.setting,
              data.place,
              source->path(),
              *difference,
              tokenizer_option(source->path()));
}

Result<std::string> resolve_config(const ModelSettings& settings,
                                   const InitModel* init,
                                   const RunData& data,
                                   int64_t sequence_length) {
  TRY_ASSIGN(Json json, base_config(settings, init));
  // A preset has no length of its own: positions that training never showed cannot be relied on.
  if (!json.contains("max_position_embeddings")) json["max_position_embeddings"] = sequence_length;
  const Json overrides = model_overrides(settings);
  for (const auto& [name, value] : overrides.items()) {
    if (init != nullptr && json.contains(name) && json.at(name) != value &&
        name != "max_position_embeddings")
      return fail(Code::kInvalidInput,
                  "model.{}: {} is {} in {}; a model that goes on from a directory keeps its shape",
                  name,
                  json_text(value),
                  json_text(json.at(name)),
                  settings.init);
    json[name] = value;
  }
  // Whole multiples of 64 keep the head's rows aligned; ids past the tokenizer's never occur.
  if (init == nullptr && !json.contains("vocab_size"))
    json["vocab_size"] = (data.vocab_size + 63) / 64 * 64;
  // Whatever the model began with, these are what it learns from now on. (Data without a begin token
  // gives the end token for one, which a model without one is not told of.)
  if (!data.asked_as_before) {
    if (init == nullptr || init->texts.bos || data.bos != data.eos) json["bos_token_id"] = data.bos;
    json["eos_token_id"] = data.eos;
  }
  const Json& vocab = json["vocab_size"];
  if (vocab.is_number_integer() && vocab.get<int64_t>() < data.vocab_size)
    return fail(Code::kInvalidInput,
                "{}: {}, and the tokenizer of {} {} has {} tokens: {}",
                init != nullptr ? "vocab_size of model.init " + settings.init : "model.vocab_size",
                json_text(vocab),
                data.setting,
                data.place,
                data.vocab_size,
                init != nullptr
                    ? "prepare the data with " + tokenizer_option(settings.init)
                    : fmt::format("set it to {} or more", (data.vocab_size + 63) / 64 * 64));
  return json_text(json, 2);
}

Result<std::unique_ptr<models::TrainableLm>> make_training_model(const Settings& settings,
                                                                 InitModel* init,
                                                                 const std::string& config_json,
                                                                 Device& device) {
  const std::string path =
      init == nullptr ? kModelTable : join_path(init->source->path(), kConfigName);
  TRY_ASSIGN(
      std::unique_ptr<models::TrainableLm> model,
      models::make_model(config_json, path, device, compute_of(settings.train), DType::kF32));
  if (init == nullptr)
    models::initialise(*model, static_cast<uint64_t>(settings.train.seed));
  else
    TRY(probe::load_fitted(*init->source, init->config, *model));
  return model;
}

Result<void> check_model(const Settings& settings, const RunData& announced, DeviceKind kind) {
  if (!settings.model.init.empty()) return {};
  TRY_ASSIGN(const std::string config,
             resolve_config(settings.model, nullptr, announced, settings.data.sequence_length));
  StandInDevice nowhere(kind);  // that it has no memory for it is told when it is made
  TRY(models::make_model(config, kModelTable, nowhere, compute_of(settings.train), std::nullopt));
  return {};
}

DType compute_of(const TrainSettings& settings) {
  return settings.compute == "f32" ? DType::kF32 : DType::kBF16;
}

DType stored_matrices_of(const CheckpointSettings& settings) {
  return settings.weights == "f32" ? DType::kF32 : DType::kBF16;
}

models::MlaForm mla_form_of(const TrainSettings& settings) {
  return settings.mla_form == "absorbed" ? models::MlaForm::kAbsorbed : models::MlaForm::kExpanded;
}

models::Recompute recompute_of(const TrainSettings& settings) {
  return settings.recompute == "none"    ? models::Recompute::kNone
         : settings.recompute == "cheap" ? models::Recompute::kCheap
                                         : models::Recompute::kLayers;
}

}  // namespace ferry
