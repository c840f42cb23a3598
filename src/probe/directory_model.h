// The model that a directory holds, made and loaded: the one way from a model directory to a
// CausalLm.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoint/model_source.h"
#include "checkpoint/weights.h"
#include "models/fit.h"
#include "models/trainable_lm.h"

namespace ferry::probe {

/// models::fit_config for the tensors of the directory. Errors: of fit_config.
Result<models::FittedConfig> fit_to(const ModelSource& from);

struct DirectoryModel {
  std::unique_ptr<models::TrainableLm> model;
  std::vector<std::string> notes;  // where config.json and weights did not fit, what was decided
};

/// Makes the model and, if asked to, loads its weights, which stay in memory as they are stored;
/// otherwise they have no memory yet (layer_weights.h fills them), and it is only checked that what
/// is stored is the model's, no more and no less. `loading`: which weights become codes or numbers on
/// the way; what is not used is decided here. Errors: kInvalidInput, kCorrupt, naming file, field or
/// tensor; kExhausted.
Result<DirectoryModel> model_of(
    ModelSource& from, Device& device, DType compute, bool load, const WeightLoading& loading = {});

/// Gives the weights of a model that was made from a fitted config the memory that load_fitted() would
/// fill. Errors: of make_room_for_weights.
Result<void> make_room_for_fitted(const ModelSource& from,
                                  const models::FittedConfig& fitted,
                                  models::CausalLm& model,
                                  const WeightLoading& loading);

/// Loads the weights of a model that was made from a fitted config. Errors: of load_weights.
Result<void> load_fitted(ModelSource& from,
                         const models::FittedConfig& fitted,
                         models::CausalLm& model,
                         const WeightLoading& loading = {});

}  // namespace ferry::probe
