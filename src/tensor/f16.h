// IEEE half precision as files and scales have it: uint16_t in memory. Bit manipulation only, so that
// the thread's flush-to-zero mode cannot change a result. Included by kernels.
#pragma once

#include <bit>
#include <cstdint>

namespace ferry {

/// Exact.
inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  const uint32_t fraction = half & 0x3FF;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  if (fraction == 0) return std::bit_cast<float>(sign);
  const int shift = std::countl_zero(fraction) - 21;  // brings the leading one to bit 10
  return std::bit_cast<float>(sign | static_cast<uint32_t>(113 - shift) << 23 |
                              ((fraction << shift) & 0x3FF) << 13);
}

/// To nearest even, with subnormals; overflow is infinity.
inline uint16_t f32_to_f16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (u >> 16) & 0x8000;
  const uint32_t magnitude = u & 0x7FFFFFFF;
  const auto with_sign = [sign](uint32_t v) { return static_cast<uint16_t>(sign | v); };
  if (magnitude > 0x7F800000)
    return with_sign(0x7E00 | ((magnitude >> 13) & 0x3FF));  // a quiet NaN
  if (magnitude >= 0x47800000) return with_sign(0x7C00);     // 2^16 and above
  // Round the fraction at the bit that the result's exponent makes the last one; a carry runs into
  // the exponent, and from the largest finite value into infinity, which is what rounding asks for.
  const uint32_t exponent = magnitude >> 23;
  if (exponent >= 113)
    return with_sign((magnitude - (112u << 23) + 0xFFF + ((magnitude >> 13) & 1)) >> 13);
  if (exponent < 102) return with_sign(0);  // below half the least subnormal, 2^-25
  const uint32_t fraction = (magnitude & 0x7FFFFF) | 0x800000;
  const uint32_t drop = 126 - exponent;  // 14..24 bits
  const uint32_t half = (1u << (drop - 1)) - 1;
  return with_sign((fraction + half + ((fraction >> drop) & 1)) >> drop);
}

}  // namespace ferry
