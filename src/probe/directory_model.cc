#include "probe/directory_model.h"

#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "models/registry.h"

namespace ferry::probe {

namespace {

/// The second names of weights: the model's own, and those that the directory adds.
std::vector<WeightAlias> all_aliases(const models::FittedConfig& fitted, models::CausalLm& model) {
  std::vector<WeightAlias> aliases = model.weight_aliases();
  for (const auto& [name, of] : fitted.repeated)
    for (const Weight* w : model.weights())
      if (w->name == of) aliases.emplace_back(name, w);
  return aliases;
}

}  // namespace

Result<models::FittedConfig> fit_to(const ModelSource& from) {
  return models::fit_config(from.config_json(), from.path_of(kConfigName), from.names());
}

Result<DirectoryModel> model_of(
    ModelSource& from, Device& device, DType compute, bool load, const WeightLoading& loading) {
  TRY_ASSIGN(const models::FittedConfig fitted, fit_to(from));
  DirectoryModel m;
  m.notes = fitted.notes;
  if (dynamic_cast<const ModelDir*>(&from) != nullptr &&
      path_exists(join_path(from.path(), "adapter_config.json")))
    m.notes.push_back(fmt::format(
        "{}: an adapter (LoRA) lies beside the weights, and is not used: --adapter {} adds "
        "it, if they do not have it yet",
        from.path(),
        from.path()));
  TRY_ASSIGN(
      m.model,
      models::make_model(fitted.json, from.path_of(kConfigName), device, compute, std::nullopt));
  TRY(load ? load_fitted(from, fitted, *m.model, loading)
           : check_stored_weights(
                 from, m.model->weights(), all_aliases(fitted, *m.model), fitted.unused));
  return m;
}

Result<void> load_fitted(ModelSource& from,
                         const models::FittedConfig& fitted,
                         models::CausalLm& model,
                         const WeightLoading& loading) {
  WeightLoading fitting = loading;
  fitting.unused = fitted.unused;
  return load_weights(from, model.device(), model.weights(), all_aliases(fitted, model), fitting);
}

Result<void> make_room_for_fitted(const ModelSource& from,
                                  const models::FittedConfig& fitted,
                                  models::CausalLm& model,
                                  const WeightLoading& loading) {
  WeightLoading fitting = loading;
  fitting.unused = fitted.unused;
  return make_room_for_weights(
      from, model.device(), model.weights(), all_aliases(fitted, model), fitting);
}

}  // namespace ferry::probe
