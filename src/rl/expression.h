// Expressions of whole numbers, computed exactly as fractions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace ferry::rl {

/// In lowest terms, denominator > 0.
struct Fraction {
  int64_t numerator = 0, denominator = 1;
};

// Nothing: it leaves 64 bits on the way, or divides by zero.
std::optional<Fraction> sum_of(const Fraction& a, const Fraction& b);
std::optional<Fraction> difference_of(const Fraction& a, const Fraction& b);
std::optional<Fraction> product_of(const Fraction& a, const Fraction& b);
std::optional<Fraction> quotient_of(const Fraction& a, const Fraction& b);

struct Expression {
  Fraction value;
  std::vector<int64_t> numbers;  // that it uses, in their order
};

/// An expression of whole numbers, + - * / and brackets. Nothing: it is none, divides by zero, or leaves 64 bits.
std::optional<Expression> evaluate_expression(std::string_view text);

}  // namespace ferry::rl
