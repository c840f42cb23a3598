// From settings to a model: preset, config.json or model directory, with the run's own values on
// top.
#pragma once

#include <memory>
#include <string>

#include "data/dataset.h"
#include "models/trainable_lm.h"
#include "train/config.h"

namespace ferry {

models::MlaForm mla_form_of(const TrainSettings& settings);
models::Recompute recompute_of(const TrainSettings& settings);

/// config.json of the run: the preset's, file's or directory's fields, then those of [model], then
/// the tokenizer's vocabulary and special tokens. Errors: kInvalidInput, kNotFound.
Result<std::string> resolve_config(const ModelSettings& settings,
                                   const data::Manifest& data,
                                   int64_t sequence_length);

/// The model of the run on its device, weights in f32: drawn from the seed, or read from
/// model.init.
Result<std::unique_ptr<models::TrainableLm>> make_training_model(const Settings& settings,
                                                                 const std::string& config_json,
                                                                 Device& device);

/// Names of the built-in presets.
std::string preset_names();

}  // namespace ferry
