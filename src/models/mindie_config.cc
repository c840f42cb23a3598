#include "models/mindie_config.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/python_json.h"

namespace ferry::models {
namespace {

using Json = nlohmann::json;

/// Its server chooses a model's code by this name, and has one for V2, V3 and R1. Source: what msModelSlim writes with
/// --mindie_format, and what vllm-ascend's people change in it (vllm-ascend, issue 1270).
constexpr const char* kDeepSeek = "deepseekv2";

/// The class that "architectures" names, if that is one of DeepSeek's; empty: it is none, or several.
std::string type_by_class(const Json& config) {
  static const std::map<std::string, std::string> kTypes = {
      {"DeepseekV2ForCausalLM", "deepseek_v2"}, {"DeepseekV3ForCausalLM", "deepseek_v3"}};
  std::set<std::string> found;
  if (const auto named = config.find("architectures"); named != config.end() && named->is_array())
    for (const Json& name : *named)
      if (name.is_string())
        if (const auto it = kTypes.find(name.get<std::string>()); it != kTypes.end())
          found.insert(it->second);
  return found.size() == 1 ? *found.begin() : "";
}

}  // namespace

Result<void> read_mindie_config(Json& config,
                                const std::string& path,
                                std::vector<std::string>& notes) {
  if (const auto type = config.find("model_type"); type != config.end() && *type == kDeepSeek) {
    const std::string meant = type_by_class(config);
    if (meant.empty())
      return fail(
          Code::kInvalidInput,
          "{}: \"model_type\" is \"{}\", which is MindIE's name for all of DeepSeek's models, and "
          "\"architectures\" does not say which of them this is: set \"model_type\" to "
          "\"deepseek_v3\" (V3, "
          "R1) or \"deepseek_v2\" (V2, V2-Lite)",
          path,
          kDeepSeek);
    notes.push_back(
        fmt::format("{}: \"model_type\" is MindIE's name for all of DeepSeek's models, \"{}\": by "
                    "\"architectures\" it is read as \"{}\"",
                    path,
                    kDeepSeek,
                    meant));
    *type = meant;
  }
  const auto quantize = config.find("quantize");
  if (quantize == config.end()) return {};
  if (!quantize->is_null() && *quantize != "float" && *quantize != "w8a8_dynamic")
    return fail(
        Code::kInvalidInput,
        "{}: \"quantize\": {} is a way of msModelSlim's, for MindIE, that Ferry does not "
        "read; it reads \"w8a8_dynamic\": quantise the model it was made from so, or take that one",
        path,
        shown_json(*quantize));
  config.erase(quantize);
  return {};
}

}  // namespace ferry::models
