// Numbers as people write them, exactly: what two texts mean is compared digit by digit, not as doubles.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ferry::rl {

/// 0.DIGITS * 10^exponent, with its sign. Equal numbers are equal in every field.
struct Decimal {
  bool negative = false;
  std::string digits;    // no zero at either end; of zero: none
  int64_t exponent = 0;  // of zero: 0
  bool operator==(const Decimal&) const = default;

  /// The same as a text, one for each number.
  std::string text() const;
  /// The number, if it is whole and within 64 bits.
  std::optional<int64_t> whole() const;
  /// The nearest one. Nothing: it is beyond them all.
  std::optional<double> nearest() const;
};

/// A whole text, white space at its ends apart: digits with a sign, a decimal point, an exponent, and commas
/// between thousands (1,234,567.5), as far as they are there. Nothing: it is no such number, or of more than a
/// thousand characters or exponents beyond a million.
std::optional<Decimal> decimal_of(std::string_view text);

/// Whether they are at most so far apart: exactly where the tolerance is 0 or both are whole numbers of 64 bits,
/// otherwise by their nearest doubles.
bool within(const Decimal& a, const Decimal& b, double tolerance);

}  // namespace ferry::rl
