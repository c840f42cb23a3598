// Counter-based randomness. A number is a pure function of (purpose, step, index), never of how
// many numbers were drawn before it, so that any rank, thread or resumed run draws the same one.
#pragma once

#include <array>
#include <cstdint>

namespace ferry {

/// What a stream of random numbers is for. The values are part of the format: append only.
enum class RandomPurpose : uint32_t {
  kInit = 1,        // parameter initialisation; step = hash of the parameter's name
  kShuffle = 2,     // order of training documents; step = epoch
  kSample = 3,      // sampling of generated tokens; step = position
  kTest = 4,        // test data
  kTokenSplit = 5,  // reserved for token splitting in data preparation
  kProbe = 6,       // prompts and projections of probes (probe/probe.h)
  kTask = 7,        // tasks that are made; step = number and difficulty (rl/task_makers.cc)
  kRollout = 8,     // seeds of answers to tasks; step = place in the order of tasks
  kAudit = 9,  // whose work in a step is computed again (train/audit_plan.cc); step = the period
};

/// Philox4x32-10. Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// Random numbers addressed by index. Cheap to copy; no state changes when it is read.
class Random {
 public:
  Random(uint64_t seed, RandomPurpose purpose, uint64_t step);

  uint64_t bits(uint64_t index) const;               // 64 uniform bits
  double uniform(uint64_t index) const;              // [0, 1), 53 bits
  double normal(uint64_t index) const;               // mean 0, variance 1 (Box-Muller)
  uint64_t below(uint64_t index, uint64_t n) const;  // [0, n), n > 0; bias below 2^-64 * n

 private:
  uint64_t seed_;
  uint32_t purpose_;
  uint64_t step_;
};

/// FNV-1a, 64 bits: a stable hash of names for keying random streams (not for integrity).
uint64_t name_hash(const char* data, uint64_t size);

}  // namespace ferry
