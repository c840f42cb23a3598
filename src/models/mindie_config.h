// What config.json says in a directory that was made for MindIE, Huawei's server: under names of its own, which no
// other program has.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace ferry::models {

/// Says in the usual way what is said in MindIE's: its one model_type of DeepSeek's models, "deepseekv2", becomes the
/// one that "architectures" names, and "quantize" goes, where what it says is what the description of the weights says
/// of each (checkpoint/quant_description.h). Adds to `notes` what was decided.
/// Errors: kInvalidInput: a model_type of which nothing says what it stands for; a way to quantise that Ferry has not.
Result<void> read_mindie_config(nlohmann::json& config,
                                const std::string& path,
                                std::vector<std::string>& notes);

}  // namespace ferry::models
