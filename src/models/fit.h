// What config.json announces and what a directory holds are not always the same: the meaning is
// certain all the same in a few cases, and this is where they are known.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace ferry::models {

/// How to read a directory's tensors.
struct FittedConfig {
  std::string json;              // config.json as make_model is to have it
  std::set<std::string> unused;  // tensors that the model does without
  /// Tensors that repeat another: (name, the other's name). Their values must be equal.
  std::vector<std::pair<std::string, std::string>> repeated;
  std::vector<std::string> notes;  // what was decided, for the user
};

/// Fits config.json to the names of the tensors that are there:
/// - multi-token prediction that is announced without weights (Transformers' save_pretrained drops
///   them and keeps num_nextn_predict_layers), or whose weights are not announced: the model is made
///   without;
/// - a head stored beside the embedding that it shares (tie_word_embeddings);
/// - tables of RoPE that old exports keep;
/// - what is said under MindIE's names (models/mindie_config.h).
/// What else does not fit is left to make_model and load_weights, which refuse it.
/// Errors: kCorrupt, kInvalidInput: as make_model.
Result<FittedConfig> fit_config(std::string_view config_json,
                                const std::string& path,
                                const std::vector<std::string>& tensors);

}  // namespace ferry::models
