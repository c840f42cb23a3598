#include "data/permutation.h"

#include <bit>

#include "base/check.h"

namespace ferry::data {

Permutation::Permutation(uint64_t n, const Random& random) : n_(n) {
  check(n >= 1, "permutation: of nothing");
  half_bits_ = (static_cast<int>(std::bit_width(n - 1)) + 1) / 2;
  for (int r = 0; r < kRounds; ++r) keys_[r] = random.bits(static_cast<uint64_t>(r));
}

uint64_t Permutation::encrypt(uint64_t x) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = x >> half_bits_, right = x & mask;
  for (const uint64_t key : keys_) {
    uint64_t f =
        (right + key) * 0xBF58476D1CE4E5B9;  // the mixer of splitmix64, cut to half the bits
    f = (f ^ (f >> 29)) * 0x94D049BB133111EB;
    const uint64_t next = left ^ ((f >> 32) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

uint64_t Permutation::operator()(uint64_t i) const {
  check(i < n_, "permutation: {} of {}", i, n_);
  uint64_t x = i;
  do x = encrypt(x);
  while (x >= n_);
  return x;
}

}  // namespace ferry::data
