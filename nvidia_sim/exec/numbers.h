// Floating point as the chip has it where hosts differ: what .ftz does, and what NaN looks like.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace nvidia_sim {

inline constexpr uint32_t kNan32 = 0x7FFFFFFF;  // what arithmetic in f32 answers for NaN
inline constexpr uint32_t kLeastNormal32 = 0x00800000;
inline constexpr uint32_t kInfinity32 = 0x7F800000;

/// Subnormal numbers become zeros of their sign.
inline float flushed(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((u & 0x7FFFFFFF) < kLeastNormal32 ? u & 0x80000000 : u);
}

inline float canonical(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((u & 0x7FFFFFFF) > kInfinity32 ? kNan32 : u);
}

/// What an instruction with .ftz answers.
inline float settled(float x) { return canonical(flushed(x)); }

/// Rounded already, to the range of whole numbers of I: beyond it the nearest one there is; NaN is
/// 0 in 32 bits and less, and the top bit alone in 64.
template <typename I, typename F>
I saturated(F x) {
  using Limits = std::numeric_limits<I>;
  if (x != x) return sizeof(I) == 8 ? static_cast<I>(uint64_t{1} << 63) : I{0};
  // 2^digits is a number of F, unlike the greatest of I.
  const F beyond = static_cast<F>(2) * static_cast<F>(Limits::max() / 2 + 1);
  if (x >= beyond) return Limits::max();
  if (x < static_cast<F>(Limits::min())) return Limits::min();
  return static_cast<I>(x);
}

}  // namespace nvidia_sim
