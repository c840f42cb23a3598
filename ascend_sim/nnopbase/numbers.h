// Element types in memory and their conversions: to nearest, ties to even, unless a mutant cuts.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "acl.h"

namespace ascend_sim {

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};
struct Flag {
  uint8_t bits;
};

/// Set on a thread while the mutant OP:rounding runs there: floats are cut instead of rounded. One
/// flag for all libraries, so no inline function.
ASCEND_SIM_EXPORT bool& cuts_on_this_thread();

inline float decode(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

inline float decode(Half x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const int exponent = (x.bits >> 10) & 31;
  const uint32_t fraction = x.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | fraction << 13);
  if (exponent == 0) {
    const float tiny = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -tiny : tiny;
  }
  return std::bit_cast<float>(sign | static_cast<uint32_t>(exponent + 112) << 23 | fraction << 13);
}

/// bits without their lowest `drop`, rounded to nearest even (or cut); may carry into the exponent.
inline uint32_t without_low_bits(uint32_t bits, int drop, bool cut) {
  if (cut) return bits >> drop;
  const uint32_t half = (uint32_t{1} << (drop - 1)) - 1;
  return (bits + half + (bits >> drop & 1u)) >> drop;
}

inline Bf16 encode_bf16(float value, bool cut) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>(without_low_bits(bits, 16, cut))};
}

inline Half encode_half(float value, bool cut) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7E00u)};
  if (magnitude >= 0x47800000u)  // 65536 and more
    return {static_cast<uint16_t>(sign | 0x7C00u)};
  if (magnitude < 0x38800000u) {  // below the smallest normal half: units of 2^-24
    const float units = std::ldexp(std::bit_cast<float>(magnitude), 24);
    return {static_cast<uint16_t>(
        sign | static_cast<uint16_t>(cut ? std::trunc(units) : std::nearbyint(units)))};
  }
  return {static_cast<uint16_t>(sign | (without_low_bits(magnitude, 13, cut) - (112u << 10)))};
}

/// double -> float, to odd: rounding the result once more to fewer bits is right.
inline float to_odd(double value) {
  const float near = static_cast<float>(value);
  if (static_cast<double>(near) == value || std::isnan(value) || std::isinf(near)) return near;
  const float below =
      std::fabs(static_cast<double>(near)) > std::fabs(value) ? std::nextafter(near, 0.0f) : near;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(below) | 1u);
}

template <class T>
constexpr bool kIsFloatType =
    std::is_floating_point_v<T> || std::is_same_v<T, Bf16> || std::is_same_v<T, Half>;

template <class T>
double as_double(T x) {
  if constexpr (std::is_same_v<T, Flag>)
    return x.bits != 0 ? 1 : 0;
  else if constexpr (std::is_arithmetic_v<T>)
    return static_cast<double>(x);
  else
    return static_cast<double>(decode(x));
}

template <class T>
int64_t as_int(T x) {
  if constexpr (std::is_integral_v<T>)
    return static_cast<int64_t>(x);
  else
    return static_cast<int64_t>(as_double(x));
}

/// Towards zero, held within the type's limits; NaN is 0.
template <class T>
T saturated(double value) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  if (value >= static_cast<double>(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

inline float cut_to_11_bits(float value) {
  if (std::isnan(value) || std::isinf(value)) return value;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) & ~uint32_t{0x1FFF});
}

/// A float (or double) as T keeps it; cut instead of rounded if `cut`.
template <class T, class Number>
T encode(Number value, bool cut) {
  const auto single = [&] {
    if constexpr (std::is_same_v<Number, double>)
      return to_odd(value);
    else
      return static_cast<float>(value);
  };
  if constexpr (std::is_same_v<T, Bf16>)
    return encode_bf16(single(), cut);
  else if constexpr (std::is_same_v<T, Half>)
    return encode_half(single(), cut);
  else if constexpr (std::is_same_v<T, Flag>)
    return {static_cast<uint8_t>(value != 0 ? 1 : 0)};
  else if constexpr (std::is_same_v<T, float>)
    return cut ? cut_to_11_bits(static_cast<float>(value)) : static_cast<float>(value);
  else if constexpr (std::is_same_v<T, double>)
    return static_cast<double>(value);
  else if constexpr (std::is_integral_v<Number>)
    return static_cast<T>(value);
  else
    return saturated<T>(static_cast<double>(value));
}

template <class T, class Number>
T encode(Number value) {
  return encode<T>(value, cuts_on_this_thread());
}

/// Calls f with a value of the C++ type that stands for `type`; false for types unknown here.
template <class F>
bool with_type(aclDataType type, const F& f) {
  switch (type) {
    case ACL_FLOAT: f(float{}); return true;
    case ACL_FLOAT16: f(Half{}); return true;
    case ACL_BF16: f(Bf16{}); return true;
    case ACL_DOUBLE: f(double{}); return true;
    case ACL_INT8: f(int8_t{}); return true;
    case ACL_UINT8: f(uint8_t{}); return true;
    case ACL_INT16: f(int16_t{}); return true;
    case ACL_UINT16: f(uint16_t{}); return true;
    case ACL_INT32: f(int32_t{}); return true;
    case ACL_UINT32: f(uint32_t{}); return true;
    case ACL_INT64: f(int64_t{}); return true;
    case ACL_UINT64: f(uint64_t{}); return true;
    case ACL_BOOL: f(Flag{}); return true;
    default: return false;
  }
}

}  // namespace ascend_sim
