// adapter_config.json: what PEFT writes beside the weights of a LoRA adapter. Each field is honoured or
// refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace ferry {

constexpr const char* kAdapterConfigName = "adapter_config.json";
/// In target_modules: every projection. (PEFT writes names, and takes this.)
constexpr const char* kAllLinear = "all-linear";
constexpr int64_t kAdapterRankMax = 1 << 16;

/// Low-rank adaptation, Hu et al. 2021, arXiv 2106.09685: W + scale B A in place of W.
struct AdapterConfig {
  int64_t rank = 0;
  double alpha = 0;
  bool rslora = false;  // Kalajdzievski 2023, arXiv 2312.03732
  /// Modules' names, or their ends from a dot on, as "q_proj", or the pattern that their names match. Both empty: the
  /// tensors say it.
  std::vector<std::string> targets;
  std::string target_pattern;
  std::vector<std::string> excluded;  // the same, of modules that are none
  std::string excluded_pattern;
  std::vector<int64_t> layers;  // whose modules alone are adapted; empty: all
  bool layers_by_name =
      false;         // a layer's number stands behind "layers", else it is the last in the name
  std::string base;  // name or path of the model that is adapted; a note, not looked at

  /// What the product of the factors is multiplied with.
  float scale() const;
  /// Why a module is not adapted, by the rules of PEFT's check_target_module_exists: "which target_modules does not
  /// name"; empty if it is. Errors: kInvalidInput, kExhausted of a pattern.
  Result<std::string> why_not(std::string_view module) const;
};

/// Errors: kInvalidInput naming the path, the field, its value and what is allowed. A field that Ferry does
/// not know is refused where it says anything: it might change what is computed. `path` is for messages.
Result<AdapterConfig> parse_adapter_config(std::string_view text, const std::string& path);

/// As PEFT reads it.
std::string to_json(const AdapterConfig& config);

}  // namespace ferry
