// bfloat16 in memory is uint16_t: the upper half of a float. Rounding is to nearest even, subnormal
// floats become zero and NaN stays a (quiet) NaN: what vcvtneps2bf16 does, on every tier.
#pragma once

#include <bit>
#include <cstdint>

namespace ferry {

using bf16_t = uint16_t;

inline float bf16_to_f32(bf16_t v) { return std::bit_cast<float>(uint32_t{v} << 16); }

inline bf16_t f32_to_bf16(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  const uint32_t magnitude = u & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<bf16_t>((u >> 16) | 0x40);
  if (magnitude < 0x00800000) return static_cast<bf16_t>((u >> 16) & 0x8000);
  return static_cast<bf16_t>((u + 0x7FFF + ((u >> 16) & 1)) >> 16);
}

}  // namespace ferry
