// Numbers between two bounds, as an automaton reads their digits.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "grammar/automaton.h"

namespace ferry::grammar {

/// Whole numbers from `low` to `high`, both included, without fraction or exponent. What is read is
/// nothing if low > high.
State read_integers(AutomatonBuilder& to,
                    State from,
                    std::optional<int64_t> low,
                    std::optional<int64_t> high);

/// A number in decimal digits: its magnitude is whole + 0.fraction. No zeros end the fraction.
struct Decimal {
  bool negative = false;
  uint64_t whole = 0;
  std::string fraction = {};
  bool excluded = false;  // as a bound

  bool is_zero() const { return whole == 0 && fraction.empty(); }
};

/// The shortest decimal that is read as this double; nothing if that needs an exponent beyond what
/// whole numbers below 2^53 and twenty digits behind the point can say.
std::optional<Decimal> decimal_of(double value);

/// Numbers between the bounds, without exponent.
State read_decimals(AutomatonBuilder& to,
                    State from,
                    const std::optional<Decimal>& low,
                    const std::optional<Decimal>& high);

}  // namespace ferry::grammar
