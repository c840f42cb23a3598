// The settings of RoPE in config.json, which every architecture shares: under two names, in two
// places, in two generations of spelling.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <set>

#include "base/json_fields.h"
#include "ops/rope/rope_config.h"

namespace ferry::models {

/// By what YaRN multiplies cosines and sines where the two mscales are not both given: programs differ.
enum class YarnRule {
  kDeepSeek,      // of its own code: 1 and 0 for those that are missing; it has no attention_factor
  kTransformers,  // a missing one, or 0, and both count for nothing; attention_factor is obeyed
};

/// Reads rope_theta, rope_scaling and rope_parameters (Transformers 5) into `rope`, which holds what
/// counts where they are silent. `scalings`: those that the architecture's own code knows.
/// `original`: original_max_position_embeddings where a scaling does not say it; 0: it must. Refused
/// are kinds and fields that Ferry does not compute, and settings that contradict each other:
/// programs differ in which of them they obey.
void read_rope(JsonFields& config,
               const std::set<ops::RopeScaling>& scalings,
               int64_t original,
               YarnRule yarn,
               ops::RopeConfig& rope);

/// What rope_scaling is to say; null without a scaling.
nlohmann::ordered_json rope_scaling_json(const ops::RopeConfig& rope);

}  // namespace ferry::models
