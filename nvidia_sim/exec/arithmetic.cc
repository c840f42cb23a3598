// Whole numbers and bits.
#include <bit>

#include "exec/decoder.h"
#include "exec/lanewise.h"

namespace nvidia_sim {
namespace {

using Run = Instruction::Run;

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

/// Calls f with a value of the C++ type of a whole-number type of 16 to 64 bits.
template <typename F>
bool with_integer(Type type, F&& f) {
  switch (type) {
    case Type::kB16:
    case Type::kU16: f(uint16_t{}); return true;
    case Type::kS16: f(int16_t{}); return true;
    case Type::kB32:
    case Type::kU32: f(uint32_t{}); return true;
    case Type::kS32: f(int32_t{}); return true;
    case Type::kB64:
    case Type::kU64: f(uint64_t{}); return true;
    case Type::kS64: f(int64_t{}); return true;
    default: return false;
  }
}

template <typename T>
T wrapped_product(T a, T b) {
  // Wider than int first: 65535 * 65535 does not fit into one.
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

template <typename T>
T high_product(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    __extension__ using Wide = __int128;
    __extension__ using WideUnsigned = unsigned __int128;
    if constexpr (std::is_signed_v<T>)
      return static_cast<T>((Wide{a} * b) >> 64);
    else
      return static_cast<T>((WideUnsigned{a} * b) >> 64);
  } else {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    return static_cast<T>((Wide{a} * b) >> (8 * sizeof(T)));
  }
}

/// What the chip answers where C++ has no answer: all ones for a division by zero.
template <typename T>
T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return static_cast<T>(Unsigned<T>{0} - static_cast<Unsigned<T>>(a));
  return static_cast<T>(a / b);
}
template <typename T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>)
    if (b == -1) return 0;
  return static_cast<T>(a % b);
}

/// add, sub, min, max, div, rem: two operands and a result of one type.
bool decode_two(Decoder& d) {
  const std::string& base = d.base();
  const bool known = base == "add" || base == "sub" || base == "min" || base == "max" ||
                     base == "div" || base == "rem";
  if (!known) return false;
  const Type type = d.take_type();
  const bool whole = with_integer(type, [&](auto value) {
    using T = decltype(value);
    using U = Unsigned<T>;
    Run& run = d.out().run;
    if (base == "add")
      run = lanewise<T, T, T>([](T a, T b) { return static_cast<T>(U(a) + U(b)); });
    else if (base == "sub")
      run = lanewise<T, T, T>([](T a, T b) { return static_cast<T>(U(a) - U(b)); });
    else if (base == "min")
      run = lanewise<T, T, T>([](T a, T b) { return a < b ? a : b; });
    else if (base == "max")
      run = lanewise<T, T, T>([](T a, T b) { return a > b ? a : b; });
    else if (base == "div")
      run = lanewise<T, T, T>([](T a, T b) { return quotient(a, b); });
    else
      run = lanewise<T, T, T>([](T a, T b) { return remainder(a, b); });
    d.map(sizeof(T), {sizeof(T), sizeof(T)});
  });
  if (!whole) d.refuse("not of this type");
  return true;
}

/// mul and mad, of which .lo keeps the type, .hi the upper half and .wide doubles it.
bool decode_product(Decoder& d) {
  const bool adds = d.base() == "mad";
  if (!adds && d.base() != "mul") return false;
  const bool wide = d.take("wide"), high = d.take("hi");
  if (!wide && !high && !d.take("lo")) d.refuse();
  const Type type = d.take_type();
  const bool whole = with_integer(type, [&](auto value) {
    using T = decltype(value);
    Run& run = d.out().run;
    if (wide) {
      if constexpr (sizeof(T) < 8) {
        using Half = std::conditional_t<sizeof(T) == 2, int32_t, int64_t>;
        using W = std::conditional_t<std::is_signed_v<T>, Half, Unsigned<Half>>;
        using U = Unsigned<W>;
        if (adds) {
          run = lanewise<W, T, T, W>(
              [](T a, T b, W c) { return static_cast<W>(U(W(a)) * U(W(b)) + U(c)); });
          d.map(sizeof(W), {sizeof(T), sizeof(T), sizeof(W)});
        } else {
          run = lanewise<W, T, T>([](T a, T b) { return static_cast<W>(U(W(a)) * U(W(b))); });
          d.map(sizeof(W), {sizeof(T), sizeof(T)});
        }
      } else {
        d.refuse("there is nothing wider");
      }
    } else if (adds) {
      if (high) d.refuse();
      run = lanewise<T, T, T, T>([](T a, T b, T c) {
        return static_cast<T>(static_cast<uint64_t>(wrapped_product(a, b)) +
                              static_cast<uint64_t>(c));
      });
      d.map(sizeof(T), {sizeof(T), sizeof(T), sizeof(T)});
    } else {
      run = high ? lanewise<T, T, T>([](T a, T b) { return high_product(a, b); })
                 : lanewise<T, T, T>([](T a, T b) { return wrapped_product(a, b); });
      d.map(sizeof(T), {sizeof(T), sizeof(T)});
    }
  });
  if (!whole) d.refuse("not of this type");
  return true;
}

/// and, or, xor, not, of numbers and of predicates.
bool decode_bits(Decoder& d) {
  const std::string& base = d.base();
  const bool one = base == "not";
  if (!one && base != "and" && base != "or" && base != "xor") return false;
  const Type type = d.take_type();
  if (type == Type::kPred) {
    d.complete(one ? 2 : 3);
    d.out().d[0] = d.predicate(0);
    d.out().a[0] = d.predicate(1);
    if (!one) d.out().a[1] = d.predicate(2);
    const auto mode = base == "and" ? 0 : base == "or" ? 1 : base == "xor" ? 2 : 3;
    d.out().mode = mode;
    d.out().run = [](Warp& w, const Instruction& i, uint32_t lanes) {
      const uint32_t a = w.predicates[i.a[0]];
      const uint32_t b = i.mode == 3 ? 0 : w.predicates[i.a[1]];
      const uint32_t value = i.mode == 0 ? a & b : i.mode == 1 ? a | b : i.mode == 2 ? a ^ b : ~a;
      uint32_t& to = w.predicates[i.d[0]];
      to = (to & ~lanes) | (value & lanes);
    };
    return true;
  }
  const bool whole = with_integer(type, [&](auto value) {
    using T = Unsigned<decltype(value)>;
    Run& run = d.out().run;
    if (one) {
      run = lanewise<T, T>([](T a) { return static_cast<T>(~a); });
      d.map(sizeof(T), {sizeof(T)});
      return;
    }
    if (base == "and")
      run = lanewise<T, T, T>([](T a, T b) { return static_cast<T>(a & b); });
    else if (base == "or")
      run = lanewise<T, T, T>([](T a, T b) { return static_cast<T>(a | b); });
    else
      run = lanewise<T, T, T>([](T a, T b) { return static_cast<T>(a ^ b); });
    d.map(sizeof(T), {sizeof(T), sizeof(T)});
  });
  if (!whole) d.refuse("not of this type");
  return true;
}

/// Shifts by as much as the type has bits, or more, leave the sign alone, or nothing.
bool decode_shift(Decoder& d) {
  const bool left = d.base() == "shl";
  if (!left && d.base() != "shr") return false;
  const Type type = d.take_type();
  const bool whole = with_integer(type, [&](auto value) {
    using T = decltype(value);
    constexpr uint32_t kBits = 8 * sizeof(T);
    d.out().run = left ? lanewise<T, T, uint32_t>([](T a, uint32_t n) {
      return static_cast<T>(n < kBits ? static_cast<uint64_t>(a) << n : 0);
    })
                       : lanewise<T, T, uint32_t>([](T a, uint32_t n) {
                           if (n < kBits) return static_cast<T>(a >> n);
                           return static_cast<T>(a < 0 ? -1 : 0);
                         });
    d.map(sizeof(T), {sizeof(T), 4});
  });
  if (!whole) d.refuse("not of this type");
  return true;
}

/// neg, abs, popc, clz
bool decode_one(Decoder& d) {
  const std::string& base = d.base();
  if (base != "neg" && base != "abs" && base != "popc" && base != "clz") return false;
  const Type type = d.take_type();
  const bool counts = base == "popc" || base == "clz";
  const bool whole = with_integer(type, [&](auto value) {
    using T = decltype(value);
    using U = Unsigned<T>;
    Run& run = d.out().run;
    if (base == "neg")
      run = lanewise<T, T>([](T a) { return static_cast<T>(U{0} - U(a)); });
    else if (base == "abs")
      run = lanewise<T, T>([](T a) { return a < 0 ? static_cast<T>(U{0} - U(a)) : a; });
    else if (base == "popc")
      run = lanewise<uint32_t, U>([](U a) { return static_cast<uint32_t>(std::popcount(a)); });
    else
      run = lanewise<uint32_t, U>([](U a) { return static_cast<uint32_t>(std::countl_zero(a)); });
    d.map(counts ? 4 : static_cast<int>(sizeof(T)), {sizeof(T)});
  });
  if (!whole) d.refuse("not of this type");
  return true;
}

/// mov of numbers and addresses, of predicates, and between a wide register and two narrow ones.
bool decode_mov(Decoder& d) {
  if (d.base() != "mov") return false;
  const Type type = d.take_type();
  if (type == Type::kPred) {
    d.complete(2);
    d.out().d[0] = d.predicate(0);
    d.out().a[0] = d.predicate(1);
    d.out().run = [](Warp& w, const Instruction& i, uint32_t lanes) {
      uint32_t& to = w.predicates[i.d[0]];
      to = (to & ~lanes) | (w.predicates[i.a[0]] & lanes);
    };
    return true;
  }
  d.complete(2);
  const int bytes = size_of(type);
  const Operand &to = d.operand(0), &from = d.operand(1);
  if (from.kind == Operand::Kind::kVector) {
    if (from.parts.size() != 2 || bytes < 4) d.refuse("two halves are expected");
    d.out().d[0] = d.destination(to, bytes);
    for (size_t n = 0; n < 2; ++n) d.out().a[n] = d.source(from.parts[n], bytes / 2);
    d.out().run = bytes == 4 ? lanewise<uint32_t, uint16_t, uint16_t>([](uint16_t a, uint16_t b) {
      return uint32_t{a} | uint32_t{b} << 16;
    })
                             : lanewise<uint64_t, uint32_t, uint32_t>([](uint32_t a, uint32_t b) {
                                 return uint64_t{a} | uint64_t{b} << 32;
                               });
    return true;
  }
  if (to.kind == Operand::Kind::kVector) {
    if (to.parts.size() != 2 || bytes < 4) d.refuse("two halves are expected");
    d.out().a[0] = d.source(from, bytes);
    // Which halves are wanted, and how wide they are.
    for (size_t n = 0; n < 2; ++n)
      if (to.parts[n].kind != Operand::Kind::kSink)
        d.out().d[n] = d.destination(to.parts[n], bytes / 2);
    d.out().mode = (to.parts[0].kind != Operand::Kind::kSink ? 1 : 0) +
                   (to.parts[1].kind != Operand::Kind::kSink ? 2 : 0) + (bytes == 8 ? 4 : 0);
    d.out().run = [](Warp& w, const Instruction& i, uint32_t lanes) {
      for (uint32_t half = 0; half < 2; ++half) {
        if ((i.mode >> half & 1) == 0) continue;
        for (int l = 0; l < kWarpSize; ++l) {
          if ((lanes >> l & 1) == 0) continue;
          if (i.mode & 4)
            w.lanes<uint32_t>(i.d[half])[l] =
                static_cast<uint32_t>(w.lanes<uint64_t>(i.a[0])[l] >> 32 * half);
          else
            w.lanes<uint16_t>(i.d[half])[l] =
                static_cast<uint16_t>(w.lanes<uint32_t>(i.a[0])[l] >> 16 * half);
        }
      }
    };
    return true;
  }
  if (bytes == 8)
    d.out().run = lanewise<uint64_t, uint64_t>([](uint64_t a) { return a; });
  else if (bytes == 4)
    d.out().run = lanewise<uint32_t, uint32_t>([](uint32_t a) { return a; });
  else if (bytes == 2)
    d.out().run = lanewise<uint16_t, uint16_t>([](uint16_t a) { return a; });
  else
    d.refuse("not of this type");
  d.map(bytes, {bytes});
  return true;
}

}  // namespace

bool decode_arithmetic(Decoder& d) {
  const auto& opcode = d.statement().opcode;
  if (const std::string& last = opcode.back(); last == "f32" || last == "f64") {
    if (d.base() != "mov") return false;
  }
  return decode_two(d) || decode_product(d) || decode_bits(d) || decode_shift(d) || decode_one(d) ||
         decode_mov(d);
}

}  // namespace nvidia_sim
