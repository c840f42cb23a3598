#include "rl/decimal.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace ferry::rl {
namespace {

constexpr size_t kCharactersMax = 1000;
constexpr int64_t kExponentMax = 1'000'000;

/// Takes a number's parts off the front of a text.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool done() const { return rest_.empty(); }
  bool take(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  std::string digits() {
    size_t n = 0;
    while (n < rest_.size() && rest_[n] >= '0' && rest_[n] <= '9') ++n;
    std::string taken(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return taken;
  }
  /// Digits, or groups of three behind one of one to three that begins with no 0. Nothing: a comma that parts no
  /// thousands (0,123 is some people's 0.123).
  std::optional<std::string> thousands() {
    std::string all = digits();
    if (!rest_.starts_with(',')) return all;
    if (all.empty() || all.size() > 3 || all[0] == '0') return std::nullopt;
    while (take(',')) {
      const std::string group = digits();
      if (group.size() != 3) return std::nullopt;
      all += group;
    }
    return all;
  }

 private:
  std::string_view rest_;
};

}  // namespace

std::string Decimal::text() const {
  return digits.empty() ? "0" : fmt::format("{}0.{}e{}", negative ? "-" : "", digits, exponent);
}

std::optional<int64_t> Decimal::whole() const {
  if (digits.empty()) return 0;
  if (exponent < std::ssize(digits) || exponent > 19) return std::nullopt;
  const std::string all = (negative ? "-" : "") + digits +
                          std::string(static_cast<size_t>(exponent) - digits.size(), '0');
  int64_t value = 0;
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  return error == std::errc() ? std::optional(value) : std::nullopt;
}

std::optional<double> Decimal::nearest() const {
  const std::string written = text();
  double value = 0;
  const auto [end, error] = std::from_chars(written.data(), written.data() + written.size(), value);
  if (error == std::errc()) return value;
  // Beyond the smallest double it is as good as nothing.
  return exponent < 0 ? std::optional(0.0) : std::nullopt;
}

std::optional<Decimal> decimal_of(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return std::nullopt;
  text = text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
  if (text.size() > kCharactersMax) return std::nullopt;
  Reader r(text);
  Decimal d;
  d.negative = r.take('-');
  if (!d.negative) r.take('+');
  const std::optional<std::string> whole = r.thousands();
  if (!whole) return std::nullopt;
  const std::string fraction = r.take('.') ? r.digits() : "";
  if (whole->empty() && fraction.empty()) return std::nullopt;
  if (r.take('e') || r.take('E')) {
    const bool down = r.take('-');
    if (!down) r.take('+');
    const std::string power = r.digits();
    const auto [end, error] =
        std::from_chars(power.data(), power.data() + power.size(), d.exponent);
    if (error != std::errc() || d.exponent > kExponentMax) return std::nullopt;
    if (down) d.exponent = -d.exponent;
  }
  if (!r.done()) return std::nullopt;
  d.digits = *whole + fraction;
  d.exponent += std::ssize(*whole);
  const size_t zeros = d.digits.find_first_not_of('0');
  if (zeros == std::string::npos) return Decimal{};
  d.digits.erase(0, zeros);
  d.exponent -= static_cast<int64_t>(zeros);
  d.digits.erase(d.digits.find_last_not_of('0') + 1);
  return d;
}

bool within(const Decimal& a, const Decimal& b, double tolerance) {
  if (a == b) return true;
  if (tolerance == 0) return false;
  const std::optional<int64_t> m = a.whole(), n = b.whole();
  if (m && n) {
    // Their distance may be beyond a signed number, never beyond an unsigned one.
    const auto x = static_cast<uint64_t>(std::max(*m, *n));
    const auto y = static_cast<uint64_t>(std::min(*m, *n));
    return static_cast<double>(x - y) <= tolerance;
  }
  const std::optional<double> x = a.nearest(), y = b.nearest();
  return x && y && std::abs(*x - *y) <= tolerance;
}

}  // namespace ferry::rl
