// cvt between whole numbers and floating point, and cvta: addresses are the same in every address
// space (those of shared memory are no addresses of global memory: used as such they are out of bounds).
#include <cmath>

#include "exec/decoder.h"
#include "exec/lanewise.h"
#include "exec/numbers.h"

namespace nvidia_sim {
namespace {

using Run = Instruction::Run;

template <typename F>
bool with_number(Type type, F&& f) {
  switch (type) {
    case Type::kU8: f(uint8_t{}); return true;
    case Type::kS8: f(int8_t{}); return true;
    case Type::kU16: f(uint16_t{}); return true;
    case Type::kS16: f(int16_t{}); return true;
    case Type::kU32: f(uint32_t{}); return true;
    case Type::kS32: f(int32_t{}); return true;
    case Type::kU64: f(uint64_t{}); return true;
    case Type::kS64: f(int64_t{}); return true;
    case Type::kF32: f(float{}); return true;
    case Type::kF64: f(double{}); return true;
    default: return false;
  }
}

/// Bytes of a register that holds the type: there are none of one byte.
int register_bytes(Type type) { return size_of(type) == 1 ? 2 : size_of(type); }

/// The register's type on the way in and out: narrower numbers lie in 16 bits.
template <typename T>
using In = std::conditional_t<sizeof(T) == 1, uint16_t, T>;
template <typename T>
using Out = std::
    conditional_t<sizeof(T) == 1, std::conditional_t<std::is_signed_v<T>, int16_t, uint16_t>, T>;

template <typename D, typename S>
Run whole_to_whole() {
  return lanewise<Out<D>, In<S>>(
      [](In<S> x) { return static_cast<Out<D>>(static_cast<D>(static_cast<S>(x))); });
}

template <typename D, typename S>
Run whole_to_float() {
  return lanewise<D, In<S>>([](In<S> x) { return static_cast<D>(static_cast<S>(x)); });
}

template <typename S, typename Of>
Run rounded(Decoder& d, Of) {
  // As the program's rounding mode is: to nearest, halves to even.
  if (d.take("rni")) return lanewise<S, S>([](S x) { return std::nearbyint(Of{}(x)); });
  if (d.take("rzi")) return lanewise<S, S>([](S x) { return std::trunc(Of{}(x)); });
  if (d.take("rmi")) return lanewise<S, S>([](S x) { return std::floor(Of{}(x)); });
  if (d.take("rpi")) return lanewise<S, S>([](S x) { return std::ceil(Of{}(x)); });
  return nullptr;
}

template <typename D, typename S, typename Of>
Run float_to_whole(Decoder& d, Of) {
  using O = Out<D>;
  if (d.take("rni"))
    return lanewise<O, S>([](S x) { return saturated<D>(std::nearbyint(Of{}(x))); });
  if (d.take("rzi")) return lanewise<O, S>([](S x) { return saturated<D>(std::trunc(Of{}(x))); });
  if (d.take("rmi")) return lanewise<O, S>([](S x) { return saturated<D>(std::floor(Of{}(x))); });
  if (d.take("rpi")) return lanewise<O, S>([](S x) { return saturated<D>(std::ceil(Of{}(x))); });
  d.refuse("how is it rounded?");
}

template <typename D, typename S>
Run conversion(Decoder& d, bool ftz) {
  constexpr bool kFromFloat = std::is_floating_point_v<S>, kToFloat = std::is_floating_point_v<D>;
  const auto as_is = [](S x) { return x; };
  const auto flush = [](S x) {
    if constexpr (std::is_same_v<S, float>) return flushed(x);
    return x;
  };
  if constexpr (!kFromFloat && !kToFloat) {
    return whole_to_whole<D, S>();
  } else if constexpr (!kFromFloat) {
    if (!d.take("rn")) d.refuse("how is it rounded?");
    return whole_to_float<D, S>();
  } else if constexpr (!kToFloat) {
    return ftz ? float_to_whole<D, S>(d, flush) : float_to_whole<D, S>(d, as_is);
  } else if constexpr (std::is_same_v<D, S>) {
    const Run run = ftz ? rounded<S>(d, flush) : rounded<S>(d, as_is);
    if (run == nullptr) d.refuse("how is it rounded?");
    return run;
  } else if constexpr (std::is_same_v<D, double>) {
    return ftz ? lanewise<double, float>([](float x) { return static_cast<double>(flushed(x)); })
               : lanewise<double, float>([](float x) { return static_cast<double>(x); });
  } else {
    if (!d.take("rn")) d.refuse("how is it rounded?");
    return ftz ? lanewise<float, double>([](double x) { return settled(static_cast<float>(x)); })
               : lanewise<float, double>([](double x) { return canonical(static_cast<float>(x)); });
  }
}

/// f32 to the 16 bits of bf16, to nearest, halves to even; NaN is the one that the chip writes.
uint16_t to_bf16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if (x != x) return kNan32 >> 16;
  return static_cast<uint16_t>((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

bool decode_cvt(Decoder& d) {
  if (d.base() != "cvt") return false;
  if (d.take("bf16")) {
    if (!d.take("rn") || d.take_type() != Type::kF32) d.refuse();
    d.out().run = lanewise<uint16_t, float>([](float x) { return to_bf16(x); });
    d.map(2, {4});
    return true;
  }
  const bool ftz = d.take("ftz");
  const Type to = d.take_type(), from = d.take_type();
  const bool known = with_number(to, [&](auto d_value) {
    const bool from_known = with_number(from, [&](auto s_value) {
      d.out().run = conversion<decltype(d_value), decltype(s_value)>(d, ftz);
    });
    if (!from_known) d.refuse("not of this type");
  });
  if (!known) d.refuse("not of this type");
  d.complete(2);
  // Registers may be wider than the type: a byte lies in one of 16 or of 32 bits.
  const int to_bytes = d.width(d.operand(0)), from_bytes = d.width(d.operand(1));
  if (to_bytes == register_bytes(to) && from_bytes == register_bytes(from)) {
    d.map(to_bytes, {from_bytes});
    return true;
  }
  d.refuse("between registers wider than its types");
}

/// cvta.to.global.u64 and cvta.global.u64; of shared memory the same, whose addresses nobody may use as generic ones.
bool decode_cvta(Decoder& d) {
  if (d.base() != "cvta") return false;
  d.take("to");
  if (!d.take("global") && !d.take("shared"))
    d.refuse("of addresses in global and shared memory alone");
  if (d.take_type() != Type::kU64) d.refuse("an address has 64 bits");
  d.out().run = lanewise<uint64_t, uint64_t>([](uint64_t a) { return a; });
  d.map(8, {8});
  return true;
}

}  // namespace

bool decode_conversion(Decoder& d) { return decode_cvt(d) || decode_cvta(d); }

}  // namespace nvidia_sim
