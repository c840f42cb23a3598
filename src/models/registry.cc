#include "models/registry.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "device/require_memory.h"
#include "models/deepseek_v3/model.h"
#include "models/deepseek_v3/size.h"

namespace ferry::models {

// The models that Ferry knows: one line each.
Result<std::unique_ptr<TrainableLm>> make_model(std::string_view config_json,
                                                const std::string& path,
                                                Device& device,
                                                DType compute,
                                                std::optional<DType> storage) {
  TRY_ASSIGN(const nlohmann::json json, parse_json(config_json, path));
  if (!json.is_object()) return fail(Code::kInvalidInput, "{}: must be a JSON object", path);
  const auto it = json.find("model_type");
  const std::string type = it != json.end() && it->is_string() ? it->get<std::string>() : "";
  if (type == "deepseek_v3" || type == "deepseek_v2") {
    TRY_ASSIGN(deepseek_v3::Config config, deepseek_v3::parse_config(config_json, path));
    if (storage)
      TRY(require_memory(
          device,
          deepseek_v3::parameters_total(config) * static_cast<double>(size_of(*storage)),
          path));
    return std::make_unique<deepseek_v3::Model>(std::move(config), device, compute, storage);
  }
  return fail(
      Code::kInvalidInput,
      "{}: \"model_type\": \"{}\" is not a model that Ferry knows (deepseek_v2, deepseek_v3)",
      path,
      type);
}

}  // namespace ferry::models
