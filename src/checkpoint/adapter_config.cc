#include "checkpoint/adapter_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json_fields.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

/// What was done to make the adapter, or is done elsewhere than in its modules: the result is the same.
const std::set<std::string>& fields_that_say_nothing() {
  static const std::set<std::string> names = {"auto_mapping",
                                              "corda_config",
                                              "ensure_weight_tying",
                                              "eva_config",
                                              "exclude_modules",
                                              "inference_mode",
                                              "init_lora_weights",
                                              "layers_pattern",
                                              "layers_to_transform",
                                              "loftq_config",
                                              "lora_dropout",
                                              "lora_ga_config",
                                              "megatron_core",
                                              "peft_version",
                                              "qalora_group_size",
                                              "revision",
                                              "runtime_config",
                                              "task_type"};
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

std::vector<std::string> read_targets(JsonFields& f) {
  const Json* targets = f.find("target_modules");
  if (targets == nullptr || targets->is_string()) return {};
  std::vector<std::string> names = f.texts("target_modules");
  if (std::any_of(names.begin(), names.end(), [](const std::string& n) { return n.empty(); }))
    f.refuse("target_modules", "must be names of modules");
  return names;
}

}  // namespace

float AdapterConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return static_cast<float>(alpha / (rslora ? std::sqrt(r) : r));
}

Result<AdapterConfig> parse_adapter_config(std::string_view text, const std::string& path) {
  TRY_ASSIGN(const Json json, parse_json(text, path));
  JsonProblem problem{.code = Code::kInvalidInput};
  JsonFields f(json, path, problem);
  AdapterConfig c;
  if (f.text("peft_type") != "LORA") f.refuse("peft_type", "is not supported; Ferry knows LORA");
  c.rank = f.integer("r", 1, kAdapterRankMax);
  c.alpha = f.real("lora_alpha", 1e-6, 1e6);
  c.rslora = f.boolean("use_rslora", false);
  c.targets = read_targets(f);
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
