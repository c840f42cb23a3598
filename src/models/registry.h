// From config.json to a model.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "models/trainable_lm.h"

namespace ferry::models {

/// Makes the model that config.json describes, with uninitialised weights of type `storage`, or,
/// without one, with weights that have no memory yet: their values are to be set before use.
/// Errors: kInvalidInput, kCorrupt, naming the field; kExhausted: the weights do not fit on the device.
Result<std::unique_ptr<TrainableLm>> make_model(std::string_view config_json,
                                                const std::string& path,
                                                Device& device,
                                                DType compute,
                                                std::optional<DType> storage);

/// The fields of this config.json, which make_model takes, that Transformers does not honour: it opens
/// the directory and computes another model. Empty: it computes this one.
std::string differs_in_transformers(std::string_view config_json);

}  // namespace ferry::models
