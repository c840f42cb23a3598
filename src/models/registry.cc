#include "models/registry.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/python_json.h"
#include "device/require_memory.h"
#include "models/deepseek_v3/model.h"
#include "models/deepseek_v3/size.h"
#include "models/llama/model.h"
#include "models/llama/size.h"

namespace ferry::models {
namespace {

template <class Model, class Config>
Result<std::unique_ptr<TrainableLm>> made(Result<Config> config,
                                          double (*parameters)(const Config&),
                                          const std::string& path,
                                          Device& device,
                                          DType compute,
                                          std::optional<DType> storage) {
  if (!config) return tl::unexpected(config.error());
  if (storage)
    TRY(require_memory_for_weights(
        device, parameters(*config) * static_cast<double>(size_of(*storage)), path));
  return std::make_unique<Model>(std::move(*config), device, compute, storage);
}

}  // namespace

// The architectures that Ferry knows.
Result<std::unique_ptr<TrainableLm>> make_model(std::string_view config_json,
                                                const std::string& path,
                                                Device& device,
                                                DType compute,
                                                std::optional<DType> storage) {
  TRY_ASSIGN(const nlohmann::json json, parse_json(config_json, path));
  if (!json.is_object()) return fail(Code::kInvalidInput, "{}: must be a JSON object", path);
  const auto it = json.find("model_type");
  const std::string type = it != json.end() && it->is_string() ? it->get<std::string>() : "";
  if (type == "deepseek_v3" || type == "deepseek_v2")
    return made<deepseek_v3::Model>(deepseek_v3::parse_config(config_json, path),
                                    deepseek_v3::parameters_total,
                                    path,
                                    device,
                                    compute,
                                    storage);
  if (type == "llama" || type == "qwen2")
    return made<llama::Model>(llama::parse_config(config_json, path),
                              llama::parameters_total,
                              path,
                              device,
                              compute,
                              storage);
  return fail(Code::kInvalidInput,
              "{}: \"model_type\": {} is not a model that Ferry knows (deepseek_v2, "
              "deepseek_v3, llama, qwen2)",
              path,
              it == json.end() ? "\"\"" : shown_json(*it));
}

std::string differs_in_transformers(std::string_view config_json) {
  const Result<deepseek_v3::Config> config = deepseek_v3::parse_config(config_json, "");
  return config ? deepseek_v3::differs_in_transformers(*config) : std::string();
}

}  // namespace ferry::models
