#include "rl/expression.h"

#include <charconv>
#include <numeric>

namespace ferry::rl {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f\v";
constexpr size_t kBytesMax = 4096;
constexpr int kDepthMax = 64;  // of brackets

/// Whether the result is there. The smallest number is left out: it has no counterpart.
bool times(int64_t a, int64_t b, int64_t& out) {
  return !__builtin_mul_overflow(a, b, &out) && out != INT64_MIN;
}
bool plus(int64_t a, int64_t b, int64_t& out) {
  return !__builtin_add_overflow(a, b, &out) && out != INT64_MIN;
}

Fraction lowest(int64_t n, int64_t d) {
  const int64_t g = std::gcd(n, d) * (d < 0 ? -1 : 1);
  return {n / g, d / g};
}

/// Recursive descent.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::optional<Expression> run() {
    const std::optional<Fraction> value = sum(0);
    skip();
    if (!value || at_ != text_.size()) return std::nullopt;
    return Expression{*value, std::move(numbers_)};
  }

 private:
  void skip() {
    while (at_ < text_.size() && kSpace.find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::optional<Fraction> sum(int depth) {
    std::optional<Fraction> a = product(depth);
    while (a) {
      const bool minus = take('-');
      if (!minus && !take('+')) break;
      const std::optional<Fraction> b = product(depth);
      if (!b) return std::nullopt;
      a = minus ? difference_of(*a, *b) : sum_of(*a, *b);
    }
    return a;
  }
  std::optional<Fraction> product(int depth) {
    std::optional<Fraction> a = factor(depth);
    while (a) {
      const bool divided = take('/');
      if (!divided && !take('*')) break;
      const std::optional<Fraction> b = factor(depth);
      if (!b) return std::nullopt;
      a = divided ? quotient_of(*a, *b) : product_of(*a, *b);
    }
    return a;
  }
  std::optional<Fraction> factor(int depth) {
    if (depth == kDepthMax) return std::nullopt;
    if (take('(')) {
      const std::optional<Fraction> inside = sum(depth + 1);
      return take(')') ? inside : std::nullopt;
    }
    skip();
    if (at_ >= text_.size() || text_[at_] < '0' || text_[at_] > '9') return std::nullopt;
    int64_t value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) return std::nullopt;
    at_ += static_cast<size_t>(end - begin);
    numbers_.push_back(value);
    return Fraction{value, 1};
  }

  std::string_view text_;
  size_t at_ = 0;
  std::vector<int64_t> numbers_;
};

}  // namespace

std::optional<Fraction> sum_of(const Fraction& a, const Fraction& b) {
  int64_t left = 0, right = 0, n = 0, d = 0;
  if (!times(a.numerator, b.denominator, left) || !times(b.numerator, a.denominator, right) ||
      !plus(left, right, n) || !times(a.denominator, b.denominator, d))
    return std::nullopt;
  return lowest(n, d);
}

std::optional<Fraction> difference_of(const Fraction& a, const Fraction& b) {
  return sum_of(a, {-b.numerator, b.denominator});
}

std::optional<Fraction> product_of(const Fraction& a, const Fraction& b) {
  int64_t n = 0, d = 0;
  if (!times(a.numerator, b.numerator, n) || !times(a.denominator, b.denominator, d))
    return std::nullopt;
  return lowest(n, d);
}

std::optional<Fraction> quotient_of(const Fraction& a, const Fraction& b) {
  int64_t n = 0, d = 0;
  if (b.numerator == 0 || !times(a.numerator, b.denominator, n) ||
      !times(a.denominator, b.numerator, d))
    return std::nullopt;
  return lowest(n, d);
}

std::optional<Expression> evaluate_expression(std::string_view text) {
  if (text.size() > kBytesMax) return std::nullopt;
  return Parser(text).run();
}

}  // namespace ferry::rl
