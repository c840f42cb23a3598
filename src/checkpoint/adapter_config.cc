#include "checkpoint/adapter_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/json_fields.h"
#include "base/python_json.h"
#include "text/limited_regex.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

/// What was done to make the adapter, or is done elsewhere than in its modules: the result is the same.
const std::set<std::string>& fields_that_say_nothing() {
  static const std::set<std::string> names = {"auto_mapping",
                                              "corda_config",
                                              "ensure_weight_tying",
                                              "eva_config",
                                              "inference_mode",
                                              "init_lora_weights",
                                              "loftq_config",
                                              "lora_dropout",
                                              "lora_ga_config",
                                              "megatron_core",
                                              "peft_version",
                                              "qalora_group_size",
                                              "revision",
                                              "runtime_config"};
  return names;
}

/// Whether a field says nothing: later versions write what they have and nobody asked for.
bool says_nothing(const Json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

/// The initialisations that leave the base's weights as they are.
bool leaves_the_base(const Json& how) {
  static const std::set<std::string> kinds = {"gaussian", "eva", "orthogonal"};
  return how.is_boolean() || (how.is_string() && kinds.contains(how.get<std::string>()));
}

/// Names of modules, or a pattern in their place.
void read_modules(JsonFields& f,
                  const char* field,
                  std::vector<std::string>& names,
                  std::string& pattern) {
  const Json* value = f.find(field);
  if (value == nullptr) return;
  if (value->is_string()) {
    pattern = f.text(field);
    if (const auto regex = text::LimitedRegex::compile(pattern); !regex)
      f.refuse(field, fmt::format("is no pattern that can be read: {}", regex.error().message));
    return;
  }
  names = f.texts(field);
  if (std::any_of(names.begin(), names.end(), [](const std::string& n) { return n.empty(); }))
    f.refuse(field, "must be names of modules");
}

void read_layers(JsonFields& f, AdapterConfig& c) {
  constexpr int64_t kLayersMax = 1 << 20;
  c.layers = f.ids("layers_to_transform", kLayersMax);
  const Json* pattern = f.find("layers_pattern");
  if (pattern == nullptr || pattern->empty() || *pattern == "") return;
  c.layers_by_name = true;
  if (*pattern != "layers" && *pattern != Json::array({"layers"}))
    f.refuse("layers_pattern",
             "is not supported; layers are called \"layers\" in what Ferry reads");
}

/// Whether a module is among the names.
bool is_among(const std::vector<std::string>& names, std::string_view module) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return module == name || module.ends_with("." + name);
  });
}

Result<bool> matches(const std::string& pattern, std::string_view module) {
  TRY_ASSIGN(const text::LimitedRegex regex, text::LimitedRegex::compile(pattern));
  return regex.matches_all(module);
}

/// The number of a module's layer, as in "model.layers.3.mlp": the last part that is a number between two others, with
/// one more before them. (Of an expert's module it is the expert's, unless "layers" is asked for.)
std::optional<int64_t> layer_of(std::string_view module, bool by_name) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    parts.push_back(module.substr(begin, end - begin));
    begin = end + 1;
  }
  for (size_t i = parts.size(); i-- > 2;) {
    int64_t number = 0;
    const char* end = parts[i].data() + parts[i].size();
    const auto [stop, error] = std::from_chars(parts[i].data(), end, number);
    if (i + 1 < parts.size() && error == std::errc() && stop == end &&
        (!by_name || parts[i - 1] == "layers"))
      return number;
  }
  return std::nullopt;
}

}  // namespace

float AdapterConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(alpha / (rslora ? std::sqrt(r) : r));
}

Result<std::string> AdapterConfig::why_not(std::string_view module) const {
  TRY_ASSIGN(const bool out,
             excluded_pattern.empty() ? Result<bool>(false) : matches(excluded_pattern, module));
  if (out || is_among(excluded, module)) return "which exclude_modules names";
  const bool any = targets == std::vector<std::string>{kAllLinear} ||
                   (targets.empty() && target_pattern.empty());
  TRY_ASSIGN(const bool matching,
             target_pattern.empty() ? Result<bool>(any) : matches(target_pattern, module));
  if (!matching && !is_among(targets, module)) return "which target_modules does not name";
  if (layers.empty() || std::find(targets.begin(), targets.end(), module) != targets.end())
    return "";
  const std::optional<int64_t> layer = layer_of(module, layers_by_name);
  if (layer && std::find(layers.begin(), layers.end(), *layer) != layers.end()) return "";
  return "whose layer layers_to_transform does not name";
}

Result<AdapterConfig> parse_adapter_config(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const Json json, parse_python_json(text, path));
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields f(json, path, problem);
  AdapterConfig c;
  if (f.text("peft_type") != "LORA") f.refuse("peft_type", "is not supported; Ferry knows LORA");
  c.rank = f.integer("r", 1, kAdapterRankMax);
  c.alpha = f.real("lora_alpha", 1e-6, 1e6);
  c.rslora = f.boolean("use_rslora", false);
  read_modules(f, "target_modules", c.targets, c.target_pattern);
  if (c.target_pattern == kAllLinear) c.targets = {std::exchange(c.target_pattern, "")};
  read_modules(f, "exclude_modules", c.excluded, c.excluded_pattern);
  read_layers(f, c);
  if (const std::string task = f.text("task_type", ""); !task.empty() && task != "CAUSAL_LM")
    f.refuse("task_type",
             "is not supported: the adapter is for another task than continuing text (CAUSAL_LM)");
  c.base = f.text("base_model_name_or_path", "");
  f.only("bias", "none");
  f.only("fan_in_fan_out", false);
  if (const Json* how = f.find("init_lora_weights"); how != nullptr && !leaves_the_base(*how))
    f.refuse("init_lora_weights",
             "changed the base's weights as well, which the adapter does not hold: convert it to a "
             "plain one (PEFT's path_initial_model_for_weight_conversion)");
  TRY(problem.done());
  std::set<std::string> ignored = fields_that_say_nothing();
  for (const auto& [name, value] : json.items())
    if (says_nothing(value)) ignored.insert(name);
  f.refuse_unknown(ignored, "is not supported: it may change what the adapter computes");
  TRY(problem.done());
  return c;
}

std::string to_json(const AdapterConfig& c) {
  nlohmann::ordered_json j;
  j["base_model_name_or_path"] = c.base;
  j["bias"] = "none";
  j["fan_in_fan_out"] = false;
  j["inference_mode"] = true;
  j["init_lora_weights"] = true;
  if (c.alpha == std::floor(c.alpha))
    j["lora_alpha"] = static_cast<int64_t>(c.alpha);
  else
    j["lora_alpha"] = c.alpha;
  j["lora_dropout"] = 0.0;
  j["modules_to_save"] = nullptr;
  j["peft_type"] = "LORA";
  j["r"] = c.rank;
  j["target_modules"] = c.targets;
  j["task_type"] = "CAUSAL_LM";
  j["use_dora"] = false;
  j["use_rslora"] = c.rslora;
  return json_text(j, 2) + "\n";
}

}  // namespace ferry
