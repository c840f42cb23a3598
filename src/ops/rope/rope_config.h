// The frequencies of a rotary position embedding. Plain data, for readers of configs too.
#pragma once

#include <cstdint>
#include <optional>

namespace ferry::ops {

/// How the frequencies of a model are slowed for contexts longer than the one it was first trained on.
enum class RopeScaling {
  kNone,
  kLinear,  // all by the factor
  kLlama3,  // those that turn seldom in the original context
  kYarn,    // those that turn seldom, by rank; cosines and sines grow a little
};

struct RopeConfig {
  int64_t dim = 64;  // rotated columns; even
  double theta = 10000;
  RopeScaling scaling = RopeScaling::kNone;  // the fields below count only with one
  double factor = 1;                         // how much longer than the original context
  int64_t original_max_position = 4096;      // kLlama3, kYarn
  // kLlama3: pairs that turn more often than this in the original context stay as they are, those
  // that turn less often than the other are slowed by factor; between them in proportion.
  double turns_kept = 4;
  double turns_slowed = 1;
  // kYarn: the same, but by the pair's number between the two that turn so often.
  double beta_fast = 32;
  double beta_slow = 1;
  // Cosines and sines are multiplied by attention_factor; without one by the ratio of what ln(factor)
  // makes of the two.
  double mscale = 1;
  double mscale_all_dim = 0;
  std::optional<double> attention_factor = std::nullopt;
  bool operator==(const RopeConfig&) const = default;
};

/// What of it no table is made for, or nullptr: the op checks it, and readers of configs refuse it.
constexpr const char* problem_of(const RopeConfig& c) {
  if (c.dim < 2 || c.dim % 2 != 0) return "RoPE turns pairs: the rotated size must be even";
  if (!(c.theta > 1)) return "theta must be above 1";
  if (c.scaling == RopeScaling::kNone) return nullptr;
  if (!(c.factor >= 1)) return "RoPE's factor must be at least 1";
  if (c.original_max_position < 1) return "RoPE's original context must have a position";
  if (c.scaling == RopeScaling::kLlama3 && !(c.turns_slowed > 0 && c.turns_kept > c.turns_slowed))
    return "RoPE's low_freq_factor must be above 0 and below high_freq_factor";
  if (c.scaling == RopeScaling::kYarn && !(c.beta_slow > 0 && c.beta_fast >= c.beta_slow))
    return "YaRN's beta_slow must be above 0 and at most beta_fast";
  if (c.scaling == RopeScaling::kYarn && !(c.attention_factor.value_or(1) > 0))
    return "YaRN's attention_factor must be above 0";
  return nullptr;
}

}  // namespace ferry::ops
