#include "models/config_rope.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "models/config_fields.h"
#include "ops/attention/attention.h"

namespace ferry::models {
namespace {

using ops::RopeScaling;

constexpr std::pair<const char*, RopeScaling> kKinds[] = {{"default", RopeScaling::kNone},
                                                          {"linear", RopeScaling::kLinear},
                                                          {"llama3", RopeScaling::kLlama3},
                                                          {"yarn", RopeScaling::kYarn}};

/// Transformers writes "rope_type", or both; older code "type".
RopeScaling read_kind(JsonFields& f, const std::set<RopeScaling>& known) {
  const std::string type = f.text("type", ""), rope_type = f.text("rope_type", "");
  if (!type.empty() && !rope_type.empty() && type != rope_type)
    f.refuse("rope_type", fmt::format("contradicts \"type\": \"{}\" beside it", type));
  const std::string& kind = type.empty() ? rope_type : type;
  if (kind.empty()) return RopeScaling::kNone;
  std::string names;
  for (const auto& [name, scaling] : kKinds) {
    if (scaling != RopeScaling::kNone && !known.contains(scaling)) continue;
    if (kind == name) return scaling;
    if (scaling != RopeScaling::kNone)
      names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name);
  }
  f.refuse(type.empty() ? "rope_type" : "type", "is not supported; Ferry computes " + names);
  return RopeScaling::kNone;
}

/// A whole number, which some programs write as 4096.0.
int64_t read_original(JsonFields& f, int64_t missing) {
  constexpr const char* kName = "original_max_position_embeddings";
  const nlohmann::json* value = f.find(kName);
  if (value != nullptr && value->is_number_float()) {
    const double v = f.real(kName, 1, static_cast<double>(ops::kPositionMax), 1);
    if (v != static_cast<double>(static_cast<int64_t>(v)))
      f.refuse(kName, "must be a whole number");
    return static_cast<int64_t>(v);
  }
  return f.integer(
      kName, 1, ops::kPositionMax, missing > 0 ? std::optional(missing) : std::nullopt);
}

/// Source: Transformers' modeling_rope_utils (5.24); DeepSeek's own modeling_deepseek.py.
void read_yarn_size(JsonFields& f, YarnRule rule, ops::RopeConfig& r) {
  const bool own = rule == YarnRule::kDeepSeek;
  const double mscale = f.real("mscale", 0, 100, own ? r.mscale : 0),
               all_dim = f.real("mscale_all_dim", 0, 100, own ? r.mscale_all_dim : 0);
  if (own || (mscale != 0 && all_dim != 0)) {
    r.mscale = mscale;
    r.mscale_all_dim = all_dim;
  }  // else the factor alone counts, which is what 1 and 0 are
  if (!f.has("attention_factor")) return;
  if (!own)
    r.attention_factor = f.real("attention_factor", 1e-3, 1e3);
  else
    f.refuse("attention_factor",
             "is not supported: Transformers obeys it, DeepSeek's own code does not know it");
}

void read_scaling(JsonFields f,
                  const std::set<RopeScaling>& known,
                  int64_t original,
                  YarnRule yarn,
                  ops::RopeConfig& r) {
  r.scaling = read_kind(f, known);
  r.theta = f.real("rope_theta", 1, 1e12, r.theta);
  if (r.scaling != RopeScaling::kNone) r.factor = f.real("factor", 1, 1e6);
  if (r.scaling == RopeScaling::kYarn || r.scaling == RopeScaling::kLlama3)
    r.original_max_position = read_original(f, original);
  if (r.scaling == RopeScaling::kYarn) {
    r.beta_fast = f.real("beta_fast", 1e-3, 1e6, r.beta_fast);
    r.beta_slow = f.real("beta_slow", 1e-3, 1e6, r.beta_slow);
    read_yarn_size(f, yarn, r);
  }
  if (r.scaling == RopeScaling::kLlama3) {
    r.turns_slowed = f.real("low_freq_factor", 1e-3, 1e6);
    r.turns_kept = f.real("high_freq_factor", 1e-3, 1e6);
  }
  f.only("partial_rotary_factor", 1.0);
  f.refuse_unknown({}, kUnknownField);
}

}  // namespace

void read_rope(JsonFields& f,
               const std::set<RopeScaling>& scalings,
               int64_t original,
               YarnRule yarn,
               ops::RopeConfig& rope) {
  bool theta_known = f.has("rope_theta");
  rope.theta = f.real("rope_theta", 1, 1e12, rope.theta);
  f.only("partial_rotary_factor", 1.0);
  const ops::RopeConfig silent = rope;
  bool scaling_known = false;
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!f.has(name)) continue;
    ops::RopeConfig read = silent;
    JsonFields of_name = f.object(name);
    const bool gives_theta = of_name.has("rope_theta");
    read_scaling(of_name, scalings, original, yarn, read);
    if (!gives_theta) read.theta = rope.theta;
    if (theta_known && read.theta != rope.theta)
      f.refuse(name, "contradicts the \"rope_theta\" beside it");
    ops::RopeConfig other = rope;
    other.theta = read.theta;
    if (scaling_known && read != other) f.refuse(name, "contradicts \"rope_scaling\" beside it");
    theta_known |= gives_theta;
    scaling_known = true;
    rope = read;
  }
}

nlohmann::ordered_json rope_scaling_json(const ops::RopeConfig& r) {
  switch (r.scaling) {
    case RopeScaling::kNone: return nullptr;
    case RopeScaling::kLinear: return {{"rope_type", "linear"}, {"factor", r.factor}};
    case RopeScaling::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", r.factor},
              {"low_freq_factor", r.turns_slowed},
              {"high_freq_factor", r.turns_kept},
              {"original_max_position_embeddings", r.original_max_position}};
    case RopeScaling::kYarn: {
      nlohmann::ordered_json j = {{"type", "yarn"},
                                  {"factor", r.factor},
                                  {"beta_fast", r.beta_fast},
                                  {"beta_slow", r.beta_slow},
                                  {"mscale", r.mscale},
                                  {"mscale_all_dim", r.mscale_all_dim},
                                  {"original_max_position_embeddings", r.original_max_position}};
      if (r.attention_factor) j["attention_factor"] = *r.attention_factor;
      return j;
    }
  }
  return nullptr;
}

}  // namespace ferry::models
