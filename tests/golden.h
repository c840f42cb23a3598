// The golden models of testdata/goldens, whose weights are drawn from the hash that tools/oracle/README.md defines,
// and what tests compare with them.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "models/trainable_lm.h"

namespace ferry {

inline const std::string kGoldens = std::string(FERRY_SOURCE_DIR) + "/testdata/goldens/";

/// The checkpoint's names of a weight: one, or one for each expert if the name has a star.
std::vector<std::string> checkpoint_names(const Weight& w);

class Golden {
 public:
  explicit Golden(const std::string& name);

  /// In f32, on the CPU.
  std::unique_ptr<models::TrainableLm> model() const;
  std::vector<float> floats(const std::string& name) const;
  std::vector<int32_t> ints(const std::string& name) const;
  const nlohmann::json& json() const { return *json_; }

 private:
  void fill(Weight& w) const;

  std::shared_ptr<const nlohmann::json> json_;
  SafetensorsFile file_;
};

/// The largest difference relative to the largest expected magnitude.
double relative_error(const std::vector<float>& got, const std::vector<float>& expected);

/// Its tokens as one document, each the label of the one before.
models::TokenBatch batch_of(const Golden& golden);

}  // namespace ferry
