// The frequencies of a rotary position embedding. Plain data, for readers of configs too.
#pragma once

#include <cstdint>

namespace ferry::ops {

struct RopeConfig {
  int64_t dim = 64;  // rotated columns; even
  double theta = 10000;
  bool yarn = false;  // the fields below count only if set
  double factor = 1;  // how much longer than the original context
  int64_t original_max_position = 4096;
  // Pairs that turn more often than beta_fast in the original context stay as they are; those that
  // turn less often than beta_slow are slowed by factor.
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
};

/// What of it no table is made for, or nullptr: the op checks it, and readers of configs refuse it.
constexpr const char* problem_of(const RopeConfig& c) {
  if (c.dim < 2 || c.dim % 2 != 0) return "RoPE turns pairs: the rotated size must be even";
  if (!(c.theta > 1)) return "theta must be above 1";
  if (!c.yarn) return nullptr;
  if (!(c.factor >= 1)) return "YaRN's factor must be at least 1";
  if (c.original_max_position < 1) return "YaRN's original context must have a position";
  if (!(c.beta_slow > 0 && c.beta_fast >= c.beta_slow))
    return "YaRN's beta_slow must be above 0 and at most beta_fast";
  return nullptr;
}

}  // namespace ferry::ops
