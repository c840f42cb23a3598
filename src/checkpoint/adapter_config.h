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
  /// Last parts of the modules' names, as "q_proj". Empty: a pattern says it, which the tensors tell as well.
  std::vector<std::string> targets;
  std::string base;  // name or path of the model that is adapted; a note, not looked at

  /// What the product of the factors is multiplied with.
  float scale() const;
};

/// Errors: kInvalidInput naming the path, the field, its value and what is allowed. A field that Ferry does
/// not know is refused where it says anything: it might change what is computed. `path` is for messages.
Result<AdapterConfig> parse_adapter_config(std::string_view text, const std::string& path);

/// As PEFT reads it.
std::string to_json(const AdapterConfig& config);

}  // namespace ferry
