// What the readers of config.json share, whatever the architecture: the fields that say nothing
// about what a model computes, and bounds of sizes.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/json_fields.h"
#include "base/result.h"

namespace ferry::models {

constexpr int64_t kSizeMax = int64_t{1} << 24;  // above any real model's
constexpr int64_t kHeadsMax = 65536;            // and of sizes of one head
constexpr int64_t kLayersMax = 10000;
constexpr int64_t kRopeTableMax = int64_t{1} << 30;  // elements, of all positions
/// Weights above it are no model's; below it every size that is computed from a config is exact.
constexpr double kParametersMax = double{int64_t{1} << 45};

/// Fields that say nothing about what the model computes here. Each is accepted whatever its value.
/// This is the one list of them: a field that is not read and not named here is refused.
const std::set<std::string>& ignored_fields();

/// Of a quantization_config that is refused: whose it is, and the way out.
std::string quantised_otherwise(const nlohmann::json& quantization_config);

constexpr const char* kUnknownField =
    "is not a field that Ferry knows; it may change what the model computes";

/// config.json's begin and end tokens.
struct TextIds {
  std::optional<int64_t> bos;  // nothing: the model has none
  std::vector<int64_t> eos;    // the first is the one that ends documents
};
TextIds read_text_ids(JsonFields& config);
/// Writes them as Transformers does: null, one id, or a list.
void write_text_ids(const TextIds& ids, nlohmann::ordered_json& config);
/// Errors: kInvalidInput for one that the vocabulary does not have.
Result<void> check_text_ids(const TextIds& ids, int64_t vocab_size, const std::string& path);

/// Errors: kInvalidInput, as for any other size that no model has.
Result<void> check_parameters(double parameters, const std::string& path);

}  // namespace ferry::models
