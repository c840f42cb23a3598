// Runs an op's spec on a device and says what it found.
#pragma once

#include <string>
#include <vector>

#include "ops/spec.h"

namespace ferry::ops {

struct Finding {
  std::string property;  // "reference", "gradient", "guard bytes", "repeatability", "rows", "tier",
                         // "threads"
  std::string detail;    // worst element, expected, got, bound
};

struct SpecOptions {
  bool gradients = true;
  bool tiers_and_threads = true;  // CPU only: every tier, 1 to 3 threads give the same bits
  int repeats = 3;
  uint64_t seed = 1;
};

/// The inputs of a case on the device, as `seed` makes them.
std::vector<Tensor> make_inputs(const OpCase& c, Device& device, uint64_t seed);

/// Everything that the case promises; empty if all holds.
std::vector<Finding> check_case(const OpCase& c, Device& device, const SpecOptions& options = {});

}  // namespace ferry::ops
