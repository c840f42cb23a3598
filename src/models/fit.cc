#include "models/fit.h"

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "base/python_json.h"
#include "models/mindie_config.h"

namespace ferry::models {
namespace {

using Json = nlohmann::json;

/// N of "model.layers.N.rest".
std::optional<int64_t> layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t layer = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, layer);
  if (error != std::errc{} || rest == end || *rest != '.') return std::nullopt;
  return layer;
}

int64_t count_in(const Json& config, const char* name) {
  const auto it = config.find(name);
  return it != config.end() && it->is_number_unsigned() ? it->get<int64_t>() : 0;
}

/// Each layer from `blocks` on is a module of multi-token prediction, whole enough to be one.
bool are_prediction_modules(const std::map<int64_t, std::set<std::string>>& layers) {
  for (const auto& [layer, names] : layers)
    for (const char* part : {"enorm.weight", "hnorm.weight", "eh_proj.weight"})
      if (!names.contains(fmt::format("model.layers.{}.{}", layer, part))) return false;
  return !layers.empty();
}

/// What "architectures" names, where that is another model than "model_type" does; empty: it is not.
std::string other_architecture(const Json& config) {
  static const std::map<std::string, std::string> kClasses = {
      {"deepseek_v2", "DeepseekV2ForCausalLM"},
      {"deepseek_v3", "DeepseekV3ForCausalLM"},
      {"llama", "LlamaForCausalLM"},
      {"qwen2", "Qwen2ForCausalLM"}};
  const auto type = config.find("model_type"), named = config.find("architectures");
  if (type == config.end() || !type->is_string() || named == config.end() || !named->is_array())
    return "";
  const auto expected = kClasses.find(type->get<std::string>());
  if (expected == kClasses.end() || named->empty()) return "";
  for (const Json& name : *named)
    if (name == expected->second) return "";
  return shown_json(*named);
}

}  // namespace

Result<FittedConfig> fit_config(std::string_view config_json,
                                const std::string& path,
                                const std::vector<std::string>& tensors) {
  TRY_ASSIGN(Json config, parse_json(config_json, path));
  if (!config.is_object()) return fail(Code::kInvalidInput, "{}: must be a JSON object", path);
  FittedConfig fitted;
  TRY(read_mindie_config(config, path, fitted.notes));
  const int64_t blocks = count_in(config, "num_hidden_layers");
  const auto tied = config.find("tie_word_embeddings");
  std::map<int64_t, std::set<std::string>> beyond;
  bool embedding = false, head = false;
  for (const std::string& name : tensors) {
    embedding |= name == "model.embed_tokens.weight";
    head |= name == "lm_head.weight";
    const std::optional<int64_t> layer = layer_of(name);
    if (layer && *layer >= blocks) beyond[*layer].insert(name);
    if (name.ends_with(".rotary_emb.inv_freq")) fitted.unused.insert(name);  // rope_theta gives it
  }
  if (tied != config.end() && *tied == true && embedding && head)
    fitted.repeated.emplace_back("lm_head.weight", "model.embed_tokens.weight");

  const int64_t announced = count_in(config, "num_nextn_predict_layers");
  if (announced > 0 && beyond.empty() && !tensors.empty()) {
    config["num_nextn_predict_layers"] = 0;
    fitted.notes.push_back(fmt::format(
        "{}: announces multi-token prediction (num_nextn_predict_layers {}), but the directory "
        "holds no weights of it: loaded without",
        path,
        announced));
  } else if (announced == 0 && are_prediction_modules(beyond)) {
    for (const auto& [layer, names] : beyond) fitted.unused.insert(names.begin(), names.end());
    fitted.notes.push_back(fmt::format(
        "{}: does not announce multi-token prediction (num_nextn_predict_layers), but the "
        "directory holds weights of it (model.layers.{}): loaded without",
        path,
        beyond.begin()->first));
  }
  if (const std::string other = other_architecture(config); !other.empty())
    fitted.notes.push_back(fmt::format(
        "{}: \"architectures\" is {}, which is not what \"model_type\" says, {}: it is read as the "
        "latter, and other programs may go by the former",
        path,
        other,
        json_text(config["model_type"])));
  fitted.json = json_text(config, 2);
  return fitted;
}

}  // namespace ferry::models
