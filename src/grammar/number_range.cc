#include "grammar/number_range.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <tuple>

namespace ferry::grammar {
namespace {

constexpr double kWholeMax = 0x1p53;
constexpr size_t kFractionMax = 20;
constexpr size_t kDigitsMax = 40;  // where there is no bound, and of fractions

/// Digits that are compared with bounds of the same length, from the front: `low` and `high` say
/// whether what was read is still the beginning of that bound.
struct Tight {
  size_t at;
  bool low, high;
  auto operator<=>(const Tight&) const = default;
};

/// Calls step(digits from, to, next) for the digits that may come: strictly between the bounds'
/// digits they come together.
template <typename Step>
void each_digit(const Tight& t, char low, char high, const Step& step) {
  const char first = t.low ? low : '0', last = t.high ? high : '9';
  char inner = first, inner_end = last;
  if (t.low) ++inner;
  if (t.high) --inner_end;
  if (first > last) return;
  if (t.low) step(first, first, Tight{t.at + 1, true, t.high && first == last});
  if (t.high && !(t.low && first == last)) step(last, last, Tight{t.at + 1, false, true});
  if (inner <= inner_end) step(inner, inner_end, Tight{t.at + 1, false, false});
}

void digits(AutomatonBuilder& b, State from, char low, char high, State to) {
  b.bytes(from, static_cast<uint8_t>(low), static_cast<uint8_t>(high), to);
}

/// Numbers of as many digits as both bounds have.
void read_as_long(
    AutomatonBuilder& b, State from, const std::string& low, const std::string& high, State to) {
  std::map<Tight, State> layer = {{{0, true, true}, from}};
  for (size_t at = 0; at < low.size(); ++at) {
    std::map<Tight, State> next;
    for (const auto& [t, state] : layer)
      each_digit(t, low[at], high[at], [&, from_state = state](char l, char h, const Tight& n) {
        if (!next.contains(n)) next[n] = at + 1 == low.size() ? to : b.state();
        digits(b, from_state, l, h, next[n]);
      });
    layer = std::move(next);
  }
}

/// Magnitudes from low to high, without leading zeros.
void read_magnitudes(
    AutomatonBuilder& b, State from, uint64_t low, std::optional<uint64_t> high, State to) {
  if (high && low > *high) return;
  const std::string least = std::to_string(low), most = high ? std::to_string(*high) : "";
  const size_t longest = high ? most.size() : least.size();
  for (size_t n = least.size(); n <= longest; ++n) {
    const std::string shortest = n == 1 ? "0" : "1" + std::string(n - 1, '0');
    read_as_long(b,
                 from,
                 n == least.size() ? least : shortest,
                 n == most.size() ? most : std::string(n, '9'),
                 to);
  }
  if (high) return;
  State at = b.state();
  digits(b, from, '1', '9', at);
  for (size_t n = 1; n < kDigitsMax; ++n) {
    const State next = b.state();
    digits(b, at, '0', '9', next);
    if (n >= least.size()) b.nothing(next, to);
    at = next;
  }
}

/// The ends of fractions that no bound holds any more, which all of one number share.
class FreeFractions {
 public:
  FreeFractions(AutomatonBuilder& b, State to) : b_(b), to_(to) {}

  /// Where so many digits were read, from 1 to kDigitsMax.
  State after(size_t digits_read) {
    if (states_.empty()) {
      for (size_t n = 1; n <= kDigitsMax; ++n) b_.nothing(states_.emplace_back(b_.state()), to_);
      for (size_t n = 1; n < kDigitsMax; ++n) digits(b_, states_[n - 1], '0', '9', states_[n]);
    }
    return states_[digits_read - 1];
  }

 private:
  AutomatonBuilder& b_;
  State to_;
  std::vector<State> states_;
};

/// A fraction, or none, of a number whose whole part is that of the bounds which are given.
void read_fractions(AutomatonBuilder& b,
                    State from,
                    const Decimal* low,
                    const Decimal* high,
                    FreeFractions& free,
                    State to) {
  const std::string none;
  const std::string &least = low != nullptr ? low->fraction : none,
                    &most = high != nullptr ? high->fraction : none;
  const auto may_end = [&](const Tight& t) {
    return (!t.low || (t.at >= least.size() && !low->excluded)) &&
           (!t.high || t.at < most.size() || !high->excluded);
  };
  const auto digit = [](const std::string& text, size_t at) {
    return at < text.size() ? text[at] : '0';
  };
  const Tight begin{0, low != nullptr, high != nullptr};
  if (may_end(begin)) b.nothing(from, to);
  std::map<Tight, State> states;
  std::vector<Tight> open = {begin};
  states[begin] = b.literal(from, ".");
  while (!open.empty()) {
    const Tight t = open.back();
    open.pop_back();
    if (t.at == kDigitsMax) continue;
    each_digit(t, digit(least, t.at), digit(most, t.at), [&](char l, char h, const Tight& n) {
      if (!n.low && !n.high) return digits(b, states[t], l, h, free.after(n.at));
      if (!states.contains(n)) {
        states[n] = b.state();
        open.push_back(n);
        if (may_end(n)) b.nothing(states[n], to);
      }
      digits(b, states[t], l, h, states[n]);
    });
  }
}

/// Magnitudes between the bounds, whose signs do not count.
void read_decimal_magnitudes(AutomatonBuilder& b,
                             State from,
                             const Decimal& low,
                             const std::optional<Decimal>& high,
                             FreeFractions& free,
                             State to) {
  const auto whole = [&](uint64_t value) { return b.literal(from, std::to_string(value)); };
  if (high && low.whole > high->whole) return;
  if (high && low.whole == high->whole)
    return read_fractions(b, whole(low.whole), &low, &*high, free, to);
  read_fractions(b, whole(low.whole), &low, nullptr, free, to);
  if (high) read_fractions(b, whole(high->whole), nullptr, &*high, free, to);
  const State between = b.state();
  if (!high || high->whole - low.whole > 1)
    read_magnitudes(
        b, from, low.whole + 1, high ? std::optional(high->whole - 1) : std::nullopt, between);
  read_fractions(b, between, nullptr, nullptr, free, to);
}

}  // namespace

State read_integers(AutomatonBuilder& b,
                    State from,
                    std::optional<int64_t> low,
                    std::optional<int64_t> high) {
  const State to = b.state();
  const auto magnitude = [](int64_t negative) { return ~static_cast<uint64_t>(negative) + 1; };
  if (!low || *low < 0) {
    std::optional<uint64_t> most;
    if (low) most = magnitude(*low);
    read_magnitudes(b, b.literal(from, "-"), high && *high < 0 ? magnitude(*high) : 1, most, to);
  }
  if (!high || *high >= 0) {
    std::optional<uint64_t> most;
    if (high) most = static_cast<uint64_t>(*high);
    read_magnitudes(b, from, low && *low > 0 ? static_cast<uint64_t>(*low) : 0, most, to);
  }
  return to;
}

std::optional<Decimal> decimal_of(double value) {
  if (!(std::abs(value) < kWholeMax)) return std::nullopt;
  Decimal out{.negative = value < 0};
  // d.ddde-XX: the shortest digits, and where their point is.
  char text[64];
  const auto written =
      std::to_chars(text, text + sizeof text, std::abs(value), std::chars_format::scientific);
  const std::string_view all(text, static_cast<size_t>(written.ptr - text));
  const size_t mark = all.find('e');
  int exponent = 0;
  const char* const sign = all.data() + mark + 1;
  std::from_chars(sign + (*sign == '+' ? 1 : 0), written.ptr, exponent);
  std::string digits(all.substr(0, mark));
  std::erase(digits, '.');
  if (exponent < 0) {
    digits.insert(0, static_cast<size_t>(-exponent), '0');
    exponent = 0;
  }
  const auto whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  out.fraction = digits.substr(whole);
  out.fraction.erase(out.fraction.find_last_not_of('0') + 1);
  if (out.fraction.size() > kFractionMax) return std::nullopt;
  std::from_chars(digits.data(), digits.data() + whole, out.whole);
  return out;
}

State read_decimals(AutomatonBuilder& b,
                    State from,
                    const std::optional<Decimal>& low,
                    const std::optional<Decimal>& high) {
  const State to = b.state();
  FreeFractions free(b, to);
  const auto below_zero = [](const std::optional<Decimal>& d) { return d && d->negative; };
  const auto of_zero = [](const std::optional<Decimal>& d) {
    return d && d->is_zero() ? *d : Decimal{};
  };
  if (!low || low->negative)
    read_decimal_magnitudes(
        b, b.literal(from, "-"), below_zero(high) ? *high : of_zero(high), low, free, to);
  if (!below_zero(high))
    read_decimal_magnitudes(b, from, low && !low->negative ? *low : Decimal{}, high, free, to);
  return to;
}

}  // namespace ferry::grammar
