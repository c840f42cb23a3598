// float8 e4m3 as files and weights have it: a sign, four bits of exponent (bias 7), three of
// fraction; no infinities, 0x7F and 0xFF are NaN, the largest number is 448.
#pragma once

#include <bit>
#include <cstdint>

namespace ferry {

/// Exact.
inline float f8e4m3_to_f32(uint8_t code) {
  const uint32_t sign = uint32_t{code & 0x80u} << 24, exponent = (code >> 3) & 15,
                 fraction = code & 7;
  if ((code & 0x7F) == 0x7F) return std::bit_cast<float>(sign | 0x7FC00000);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 120) << 23 | fraction << 20);
  const float size = static_cast<float>(fraction) * 0x1p-9f;
  return sign != 0 ? -size : size;
}

}  // namespace ferry
