// A random order of N things that is computed, not stored.
#pragma once

#include <array>
#include <cstdint>

#include "base/random.h"

namespace ferry::data {

/// A bijection of [0, n) onto itself, keyed by `random`: a Feistel network on the next even number
/// of bits, whose results outside [0, n) are encrypted again until they lie inside (at most four
/// times on average). Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains".
class Permutation {
 public:
  Permutation(uint64_t n, const Random& random);  // n >= 1
  uint64_t operator()(uint64_t i) const;          // i < n
  uint64_t size() const { return n_; }

 private:
  static constexpr int kRounds = 8;
  uint64_t encrypt(uint64_t x) const;
  uint64_t n_;
  int half_bits_;
  std::array<uint64_t, kRounds> keys_;
};

}  // namespace ferry::data
