// Each function reduces its argument to a small r by a table or by multiples of a constant, keeps r
// and the terms of the series that matter as unevaluated sums of two doubles, and rounds once at the
// end: to 1/2 ulp come the roundings of the small terms. 1 ulp is 2^-52 of a number in [1, 2).
#include "base/math.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "base/math_tables.h"

namespace ferry::math {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kAngleMax = 0x1p40;

/// high + low, |low| <= ulp(high) / 2.
struct Pair {
  double high, low;
};

/// a + b without error, for any a and b (Knuth).
Pair sum(double a, double b) {
  const double s = a + b, part = s - a;
  return {s, (a - (s - part)) + (b - part)};
}

/// The same for |a| >= |b|, or a = 0 (Dekker).
Pair sum_ordered(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// a * b without error.
Pair product(double a, double b) {
  const double p = a * b;
  return {p, std::fma(a, b, -p)};
}

/// To 2^-100 of itself.
Pair product(Pair a, Pair b) {
  const Pair p = product(a.high, b.high);
  return {p.high, p.low + (a.high * b.low + a.low * b.high)};
}

/// 1 / n for whole n. constexpr: the second is the rest of the division, exact for small n.
constexpr Pair inverse(int n) {
  const double high = 1.0 / n;
  // 1 - n * high, exactly: high has 53 bits, so split it for products of at most 53.
  const double upper = std::bit_cast<double>(std::bit_cast<uint64_t>(high) & ~uint64_t{0x3FFFFFF});
  return {high, ((1 - n * upper) - n * (high - upper)) / n};
}
constexpr Pair kThird = inverse(3), kSixth = inverse(6), kTwentyFourth = inverse(24);

/// e^x for -708 <= x.high <= 709.79: x = k ln2/128 + r, |r| < 0.0028; 2^(k/128) from the table.
/// The largest term that is rounded beside the last sum is r: 3 roundings of 2^-8.5-53, 0.006 ulp.
[[gnu::always_inline]] inline double exp_of_any(Pair x) {
  const double k = std::floor(x.high * (kIntervals / kLn2) + 0.5);
  // k * kStepHigh has at most 18 + 35 bits and cancels, so the fma is exact.
  const Pair r = sum_ordered(std::fma(-k, kStepHigh, x.high), x.low - k * kStepLow);
  double p = 1.0 / 720;
  p = std::fma(p, r.high, 1.0 / 120);
  p = std::fma(p, r.high, 1.0 / 24);
  p = std::fma(p, r.high, 1.0 / 6);
  p = std::fma(p, r.high, 1.0 / 2);
  p = std::fma(p, r.high * r.high, r.low) + r.high;  // e^r - 1; r^7/7! is below 2^-72
  const auto n = static_cast<int64_t>(k);
  const double* const power = kPowers[n & (kIntervals - 1)];
  return std::ldexp(power[0] + std::fma(power[0], p, power[1]),
                    static_cast<int>(n >> 7));  // exact: no result is subnormal
}
static_assert(kIntervals == 1 << 7);

#if defined(__x86_64__)
/// With fma and floor as instructions and not as calls: a third of the time, the same bits.
[[gnu::target("fma,sse4.1")]] double exp_of_with_fma(Pair x) { return exp_of_any(x); }
const bool kHasFma = __builtin_cpu_supports("fma") && __builtin_cpu_supports("sse4.1");

double exp_of(Pair x) { return kHasFma ? exp_of_with_fma(x) : exp_of_any(x); }
#else
double exp_of(Pair x) { return exp_of_any(x); }
#endif

/// ln x for normal x > 0, to 2^-68 of itself. x = z 2^e, z in [0.6875, 1.375); r = z c - 1 with c
/// from the table, |r| <= 2^-7, and c = 1 next to 1; ln x = e ln2 - ln c + ln(1 + r).
Pair log_of(double x) {
  constexpr uint64_t kFirst = 0x3FE6000000000000;  // 0.6875
  const uint64_t bits = std::bit_cast<uint64_t>(x), above = bits - kFirst;
  const double e = static_cast<double>(static_cast<int64_t>(above) >> 52);
  const double z = std::bit_cast<double>(bits - (above & uint64_t{0xFFF} << 52));
  const double* const entry = kLogarithms[above >> 45 & (kIntervals - 1)];
  const Pair scaled = product(z, entry[0]);
  const Pair r = sum_ordered(scaled.high - 1, scaled.low);  // near 1: exact
  const Pair square = product(r, r), cube = product(product(square, r), kThird);
  double rest = -1.0 / 10;  // r^11/11 is below 2^-80
  rest = std::fma(rest, r.high, 1.0 / 9);
  rest = std::fma(rest, r.high, -1.0 / 8);
  rest = std::fma(rest, r.high, 1.0 / 7);
  rest = std::fma(rest, r.high, -1.0 / 6);
  rest = std::fma(rest, r.high, 1.0 / 5);
  rest = std::fma(rest, r.high, -1.0 / 4);
  rest = rest * square.high * square.high;
  const Pair a = sum(e * kLn2High, entry[1]);  // e * kLn2High has at most 11 + 42 bits
  const Pair b = sum(a.high, r.high), c = sum(b.high, -0.5 * square.high),
             d = sum(c.high, cube.high);
  const double low = std::fma(e, kLn2Low, entry[2]) + a.low +
                     (b.low + (c.low + (d.low + (r.low - 0.5 * square.low + cube.low + rest))));
  return sum(d.high, low);
}

/// Whether x is zero or subnormal, whatever DAZ makes of comparisons.
bool is_zero(double x) { return (std::bit_cast<uint64_t>(x) >> 52 & 0x7FF) == 0; }

/// sin r, |r| <= pi/4 + 2^-12. The term r^3/6 is a pair; the roundings of the next, r^5/120, and of
/// its sums are below 0.006 ulp.
double sine(Pair r) {
  const Pair square = product(r, r), cube = product(product(square, r), kSixth);
  const double s = square.high;
  double p = 1.0 / 355687428096000;  // 17!: the next term is below 2^-63
  p = std::fma(p, s, -1.0 / 1307674368000);
  p = std::fma(p, s, 1.0 / 6227020800);
  p = std::fma(p, s, -1.0 / 39916800);
  p = std::fma(p, s, 1.0 / 362880);
  p = std::fma(p, s, -1.0 / 5040);
  p = std::fma(p, s, 1.0 / 120);
  p = p * s * s * r.high;
  const Pair sum = sum_ordered(r.high, -cube.high);
  return sum.high + (sum.low + (r.low - cube.low + p));
}

/// cos r, likewise; r^4/24 is a pair, r^6/720 is rounded.
double cosine(Pair r) {
  const Pair square = product(r, r), fourth = product(product(square, square), kTwentyFourth);
  const double s = square.high;
  double p = -1.0 / 6402373705728000;  // 18!: the next is below 2^-68
  p = std::fma(p, s, 1.0 / 20922789888000);
  p = std::fma(p, s, -1.0 / 87178291200);
  p = std::fma(p, s, 1.0 / 479001600);
  p = std::fma(p, s, -1.0 / 3628800);
  p = std::fma(p, s, 1.0 / 40320);
  p = std::fma(p, s, -1.0 / 720);
  p = p * s * s * s;
  const Pair first = sum_ordered(1, -0.5 * s), second = sum_ordered(first.high, fourth.high);
  return second.high + (second.low + (first.low - 0.5 * square.low + fourth.low + p));
}

/// x = quarters pi/2 + r, |x| <= 2^40.
struct Angle {
  int64_t quarters;
  Pair r;
};
Angle angle_of(double x) {
  const double n = std::floor(x * (2 / kPi) + 0.5);
  // x and n * kHalfPi[0] are multiples of 2^-52, or n is 0 or +-1: the fma is exact. The second part
  // follows without error, the third is enough for the double that comes nearest to a multiple.
  const Pair part = product(n, kHalfPi[1]);
  const Pair r = sum(std::fma(-n, kHalfPi[0], x), -part.high);
  return {static_cast<int64_t>(n), sum_ordered(r.high, r.low - part.low - n * kHalfPi[2])};
}

/// The cosine of r and `quarters` right angles.
double cosine(int64_t quarters, Pair r) {
  const double size = quarters & 1 ? sine(r) : cosine(r);
  return (quarters + 1) & 2 ? -size : size;
}

}  // namespace

double exp(double x) {
  if (x < -708) return 0;
  if (x > 709.782712893384) return kInfinity;
  return std::isnan(x) ? x : exp_of({x, 0});
}

double log(double x) {
  if (is_zero(x)) return -kInfinity;
  if (!(x > 0)) return kNan;
  return std::isinf(x) ? x : log_of(x).high;
}

double pow(double x, double y) {
  if (x == 1 || is_zero(y)) return 1;
  if (std::isnan(y)) return y;
  if (is_zero(x)) return y > 0 ? 0 : kInfinity;
  if (!(x > 0)) return kNan;
  if (std::isinf(x)) return y > 0 ? kInfinity : 0;
  const Pair l = log_of(x);
  const double high = y * l.high;
  if (high < -708) return 0;
  if (high > 709.782712893384) return kInfinity;
  return exp_of({high, std::fma(y, l.high, -high) + y * l.low});
}

double cos(double x) {
  if (!(std::fabs(x) <= kAngleMax)) return kNan;
  const Angle a = angle_of(x);
  return cosine(a.quarters, a.r);
}

double sin(double x) {
  if (!(std::fabs(x) <= kAngleMax)) return kNan;
  if (std::fabs(x) < 0x1p-27) return x;  // the next term, x^3/6, is below a quarter of an ulp
  const Angle a = angle_of(x);
  return cosine(a.quarters - 1, a.r);  // sin x = cos(x - pi/2)
}

}  // namespace ferry::math
