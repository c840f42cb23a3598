// Whose share of a step another rank computes again, to the bit. Pure: every rank works it out for itself, and all come
// to the same.
#pragma once

#include <cstdint>
#include <vector>

namespace ferry {

/// How often that is done.
struct AuditSettings {
  bool each_step = false;  // of every rank, in every step
  int64_t every = 0;       // else of one rank, in one of so many steps; 0: never
  uint64_t seed = 0;

  bool any() const { return each_step || every > 0; }
};

/// Of each rank who computes its share of the step again; -1: nobody. A rank never does so for itself, and no pair of
/// them stays together.
std::vector<int> auditors_of(int64_t step, int ranks, const AuditSettings& settings);

}  // namespace ferry
