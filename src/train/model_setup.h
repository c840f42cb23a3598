// From settings to a model: preset, config.json or model directory, with the run's own values on
// top.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/model_texts.h"
#include "models/fit.h"
#include "models/trainable_lm.h"
#include "train/config.h"
#include "train/run_data.h"

namespace ferry {

DType compute_of(const TrainSettings& settings);
DType stored_matrices_of(const CheckpointSettings& settings);
models::MlaForm mla_form_of(const TrainSettings& settings);
models::Recompute recompute_of(const TrainSettings& settings);

/// The model that a run begins with (model.init), opened once: its config, weights and texts are one
/// model's.
struct InitModel {
  std::unique_ptr<ModelSource> source;
  models::FittedConfig config;
  ModelTexts texts;

  /// Errors: of open_model_source, fit_config and read_model_texts.
  static Result<InitModel> open(const std::string& path);

  /// What the user is to know: where it contradicts itself, and where the data says
  /// otherwise about begin and end tokens.
  std::vector<std::string> notes(const RunData& data) const;
  /// Refuses data whose ids mean something else to this model, and conversations in another template
  /// than its own, or with other special tokens. A run that goes on passes `notes_of_going_on`, and may have data whose
  /// fingerprint is of the templates alone, as it was written once; a note says so. Errors: kInvalidInput.
  Result<void> check_data(const RunData& data,
                          std::vector<std::string>* notes_of_going_on = nullptr) const;
};

/// What tells whether the files of model.init were written to meanwhile: names, sizes and times of
/// change of all that count, or of the one GGUF file and those that it says belong to it. Errors: of looking at them.
Result<std::string> state_of_init(const std::string& path);

/// config.json of the run: the preset's, file's or directory's fields, then those of [model], then
/// the tokenizer's vocabulary and special tokens. `init` is settings.init's model, nullptr if
/// that is empty. Errors: kInvalidInput, kNotFound.
Result<std::string> resolve_config(const ModelSettings& settings,
                                   const InitModel* init,
                                   const RunData& data,
                                   int64_t sequence_length);

/// Whether [model] describes a model, asked with what the data announces and before all of it is read: a slip costs no
/// hour. Of a run that begins with settings.model.init nothing is asked. Errors: those of what follows.
Result<void> check_model(const Settings& settings, const RunData& announced, DeviceKind kind);

/// The model of the run on its device, weights in f32: drawn from the seed, or read from `init`.
Result<std::unique_ptr<models::TrainableLm>> make_training_model(const Settings& settings,
                                                                 InitModel* init,
                                                                 const std::string& config_json,
                                                                 Device& device);

/// The architecture that model.preset or model.config names, without what [model] lays over it; {} of
/// model.init and of none. Errors: kInvalidInput, kNotFound.
Result<nlohmann::ordered_json> named_architecture(const ModelSettings& settings);

/// Names of the built-in presets.
std::string preset_names();

}  // namespace ferry
