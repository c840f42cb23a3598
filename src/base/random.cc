#include "base/random.h"

#include <cmath>

#include "base/math.h"

namespace ferry {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0],
         static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1],
         static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

Random::Random(uint64_t seed, RandomPurpose purpose, uint64_t step)
    : seed_(seed), purpose_(static_cast<uint32_t>(purpose)), step_(step) {}

uint64_t Random::bits(uint64_t index) const {
  // The purpose is folded into the key: 28 bits of it never collide with the seeds people choose.
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed_),
                                       static_cast<uint32_t>(seed_ >> 32) ^ (purpose_ << 20)};
  const std::array<uint32_t, 4> out = philox({static_cast<uint32_t>(index),
                                              static_cast<uint32_t>(index >> 32),
                                              static_cast<uint32_t>(step_),
                                              static_cast<uint32_t>(step_ >> 32)},
                                             key);
  return (uint64_t{out[0]} << 32) | out[1];
}

double Random::uniform(uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1.0p-53;
}

double Random::normal(uint64_t index) const {
  // Both uniforms come from one 64-bit draw: 32 bits each are plenty for initialisation and tests.
  const uint64_t b = bits(index);
  const double u1 = (static_cast<double>(b >> 32) + 0.5) * 0x1.0p-32;
  const double u2 = static_cast<double>(b & 0xFFFFFFFF) * 0x1.0p-32;
  return std::sqrt(-2.0 * math::log(u1)) * math::cos(2 * math::kPi * u2);
}

uint64_t Random::below(uint64_t index, uint64_t n) const {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(bits(index)) * n) >> 64);
}

uint64_t name_hash(const char* data, uint64_t size) {
  uint64_t h = 0xCBF29CE484222325;
  for (uint64_t i = 0; i < size; ++i) h = (h ^ static_cast<unsigned char>(data[i])) * 0x100000001B3;
  return h;
}

}  // namespace ferry
