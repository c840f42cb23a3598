// setp, and selp, which chooses by what setp found.
#include "exec/decoder.h"
#include "exec/lanewise.h"
#include "exec/numbers.h"

namespace nvidia_sim {
namespace {

enum class Join : int { kNone, kAnd, kOr, kXor };

/// d[0] what holds, d[1] its opposite (if count is 2); a[2] the predicate that is joined.
template <typename T, typename F>
void compare(Warp& w, const Instruction& i, uint32_t lanes) {
  const T *a = w.lanes<T>(i.a[0]), *b = w.lanes<T>(i.a[1]);
  uint32_t holds = 0;
  for (int l = 0; l < kWarpSize; ++l) holds |= static_cast<uint32_t>(F{}(a[l], b[l])) << l;
  uint32_t opposite = ~holds;
  if (const auto join = static_cast<Join>(i.mode & 3); join != Join::kNone) {
    const uint32_t c = i.mode & 4 ? ~w.predicates[i.a[2]] : w.predicates[i.a[2]];
    const auto joined = [&](uint32_t p) {
      return join == Join::kAnd ? p & c : join == Join::kOr ? p | c : p ^ c;
    };
    holds = joined(holds);
    opposite = joined(opposite);
  }
  const auto set = [&](uint32_t to, uint32_t value) {
    w.predicates[to] = (w.predicates[to] & ~lanes) | (value & lanes);
  };
  set(i.d[0], holds);
  if (i.count == 2) set(i.d[1], opposite);
}

template <typename T, typename F>
Instruction::Run comparison(F) {
  return compare<T, F>;
}

template <typename T>
Instruction::Run ordered(Decoder& d) {
  if (d.take("eq")) return comparison<T>([](T a, T b) { return a == b; });
  if (d.take("ne")) return comparison<T>([](T a, T b) { return a != b; });
  if (d.take("lt") || d.take("lo")) return comparison<T>([](T a, T b) { return a < b; });
  if (d.take("le") || d.take("ls")) return comparison<T>([](T a, T b) { return a <= b; });
  if (d.take("gt") || d.take("hi")) return comparison<T>([](T a, T b) { return a > b; });
  if (d.take("ge") || d.take("hs")) return comparison<T>([](T a, T b) { return a >= b; });
  d.refuse();
}

/// `Of` reads an operand: as it is, or flushed. Without a u at the end NaN compares false.
template <typename T, typename Of>
Instruction::Run floating(Decoder& d, Of) {
  const auto nan = [](T a, T b) { return a != a || b != b; };
  using Nan = decltype(nan);
  if (d.take("eq")) return comparison<T>([](T a, T b) { return Of{}(a) == Of{}(b); });
  if (d.take("ne"))
    return comparison<T>([](T a, T b) { return !Nan{}(a, b) && Of{}(a) != Of{}(b); });
  if (d.take("lt")) return comparison<T>([](T a, T b) { return Of{}(a) < Of{}(b); });
  if (d.take("le")) return comparison<T>([](T a, T b) { return Of{}(a) <= Of{}(b); });
  if (d.take("gt")) return comparison<T>([](T a, T b) { return Of{}(a) > Of{}(b); });
  if (d.take("ge")) return comparison<T>([](T a, T b) { return Of{}(a) >= Of{}(b); });
  if (d.take("equ"))
    return comparison<T>([](T a, T b) { return Nan{}(a, b) || Of{}(a) == Of{}(b); });
  if (d.take("neu")) return comparison<T>([](T a, T b) { return Of{}(a) != Of{}(b); });
  if (d.take("ltu")) return comparison<T>([](T a, T b) { return !(Of{}(a) >= Of{}(b)); });
  if (d.take("leu")) return comparison<T>([](T a, T b) { return !(Of{}(a) > Of{}(b)); });
  if (d.take("gtu")) return comparison<T>([](T a, T b) { return !(Of{}(a) <= Of{}(b)); });
  if (d.take("geu")) return comparison<T>([](T a, T b) { return !(Of{}(a) < Of{}(b)); });
  if (d.take("num")) return comparison<T>([](T a, T b) { return !Nan{}(a, b); });
  if (d.take("nan")) return comparison<T>(nan);
  d.refuse();
}

Instruction::Run comparison_of(Decoder& d, Type type, bool ftz) {
  switch (type) {
    case Type::kB16:
    case Type::kU16: return ordered<uint16_t>(d);
    case Type::kS16: return ordered<int16_t>(d);
    case Type::kB32:
    case Type::kU32: return ordered<uint32_t>(d);
    case Type::kS32: return ordered<int32_t>(d);
    case Type::kB64:
    case Type::kU64: return ordered<uint64_t>(d);
    case Type::kS64: return ordered<int64_t>(d);
    case Type::kF32:
      return ftz ? floating<float>(d, [](float x) { return flushed(x); })
                 : floating<float>(d, [](float x) { return x; });
    case Type::kF64: return floating<double>(d, [](double x) { return x; });
    default: d.refuse("not of this type");
  }
}

bool decode_setp(Decoder& d) {
  if (d.base() != "setp") return false;
  const bool ftz = d.take("ftz");
  const Type type = d.take_type();
  Instruction& out = d.out();
  out.run = comparison_of(d, type, ftz);
  const Join join = d.take("and")   ? Join::kAnd
                    : d.take("or")  ? Join::kOr
                    : d.take("xor") ? Join::kXor
                                    : Join::kNone;
  out.mode = static_cast<int>(join);
  d.complete(join == Join::kNone ? 3 : 4);
  Operand first = d.operand(0);
  if (!first.second.empty()) {
    Operand opposite = first;
    opposite.name = first.second;
    opposite.second.clear();
    out.d[1] = d.predicate(opposite);
    out.count = 2;
    first.second.clear();
  }
  out.d[0] = d.predicate(first);
  for (size_t n = 0; n < 2; ++n) out.a[n] = d.source(n + 1, size_of(type));
  if (join != Join::kNone) {
    Operand joined = d.operand(3);
    if (joined.negated) out.mode |= 4;
    joined.negated = false;
    out.a[2] = d.predicate(joined);
  }
  return true;
}

template <typename T>
void select(Warp& w, const Instruction& i, uint32_t lanes) {
  const T *a = w.lanes<T>(i.a[0]), *b = w.lanes<T>(i.a[1]);
  const uint32_t first = w.predicates[i.a[2]];
  T out[kWarpSize];
  for (int l = 0; l < kWarpSize; ++l) out[l] = first >> l & 1 ? a[l] : b[l];
  keep(w.lanes<T>(i.d[0]), out, lanes);
}

bool decode_selp(Decoder& d) {
  if (d.base() != "selp") return false;
  const int bytes = size_of(d.take_type());
  d.complete(4);
  Instruction& out = d.out();
  out.d[0] = d.destination(size_t{0}, bytes);
  for (size_t n = 0; n < 2; ++n) out.a[n] = d.source(n + 1, bytes);
  out.a[2] = d.predicate(3);
  if (bytes != 2 && bytes != 4 && bytes != 8) d.refuse("not of this type");
  out.run = bytes == 2 ? select<uint16_t> : bytes == 4 ? select<uint32_t> : select<uint64_t>;
  return true;
}

}  // namespace

bool decode_comparison(Decoder& d) { return decode_setp(d) || decode_selp(d); }

}  // namespace nvidia_sim
