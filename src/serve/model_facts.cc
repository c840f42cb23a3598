#include "serve/model_facts.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/version.h"
#include "checkpoint/gguf_model.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/passport.h"

namespace ferry::serve {
namespace {

using Json = nlohmann::ordered_json;

/// As config.json names it.
Json architecture_of(const ModelSource& from) {
  const Result<nlohmann::json> config = parse_json(from.config_json(), kConfigName);
  if (!config || !config->is_object()) return nullptr;
  const auto it = config->find("architectures");
  return it != config->end() && it->is_array() && !it->empty() ? Json(it->front()) : Json(nullptr);
}

/// "Q4_1, F32": the types of matrices, those of most numbers first.
std::string stored_types(const ModelSource& from) {
  const auto* const gguf = dynamic_cast<const GgufModel*>(&from);
  std::map<std::string, int64_t> numbers;
  for (const std::string& name : from.names())
    if (const auto tensor = from.stored(name); tensor && tensor->shape.rank() > 1)
      numbers[gguf != nullptr ? gguf->type_of(name) : to_string(tensor->dtype)] +=
          tensor->shape.count();
  std::vector<std::pair<int64_t, std::string>> most;
  for (const auto& [type, count] : numbers) most.emplace_back(-count, type);
  std::sort(most.begin(), most.end());
  std::string types;
  for (const auto& [count, type] : most) types += (types.empty() ? "" : ", ") + type;
  return types;
}

Json passport_json(const Passport& p) {
  Json j = {{"root", p.root},
            {"signed_by", p.signature ? Json(p.signature->public_key) : Json(nullptr)},
            {"program", p.program},
            {"reference", p.probes.reference},
            {"training", nullptr}};
  if (!p.training) return j;
  Json held_out = nullptr;
  if (p.training->held_out_loss) held_out = *p.training->held_out_loss;
  j["training"] = {{"steps", p.training->steps},
                   {"tokens", p.training->tokens},
                   {"devices", p.training->devices},
                   {"held_out_loss", held_out},
                   {"data", p.training->data}};
  return j;
}

}  // namespace

Result<std::string> model_facts(const ModelSource& from,
                                const models::CausalLm& model,
                                const std::string& name,
                                const std::string& weights,
                                bool other_template,
                                int64_t context,
                                bool chats) {
  Json j = {{"model", name},
            {"architecture", architecture_of(from)},
            {"format", dynamic_cast<const GgufModel*>(&from) != nullptr ? "gguf" : "directory"},
            {"stored", stored_types(from)},
            {"weights", weights.empty() ? "as stored" : weights},
            {"parameters", model.parameters_total()},
            {"chat_template", other_template ? "another" : "as stored"},
            {"device", model.device().describe()},
            {"verified_as", verified_as(model.device())},
            {"dtype", to_string(model.compute())},
            {"program", std::string("ferry ") + kVersion},
            {"context", context},
            {"chat", chats},
            {"passport", nullptr},
            {"verified", Json::array()}};
  const auto* const directory = dynamic_cast<const ModelDir*>(&from);
  if (directory == nullptr || directory->passport() == nullptr) return json_text(j);
  j["passport"] = passport_json(*directory->passport());
  TRY_ASSIGN(const std::vector<Verification> list,
             read_verifications(directory->path(), directory->passport()->root));
  for (const Verification& v : list)
    j["verified"].push_back({{"device", v.device},
                             {"dtype", to_string(v.dtype)},
                             {"passed", v.passed},
                             {"unix_ms", v.unix_ms}});
  return json_text(j);
}

}  // namespace ferry::serve
