// exp, log, pow, cos and sin in float64, made of exactly rounded operations alone (+ - * / fma and
// whole-number arithmetic), so that their bits do not depend on the C library: another glibc or
// another compiler gives the same weights, samples and rope tables (docs/numerics.md). Nothing in
// src/ calls libm for them (tests/tidy_test).
//
// Accuracy: each result is within 0.51 ulp of the true value. The derivation stands in math.cc, the
// test compares with values from mpmath. Subnormal arguments are zeros and results below 2^-1021.4
// (e^-708) become zero, as everywhere in Ferry; so FTZ and DAZ change no bit.
#pragma once

namespace ferry::math {

/// e^x. Above 709.78 infinity, below -708 zero; NaN stays NaN.
double exp(double x);

/// ln x. Of zero minus infinity, of negative x NaN.
double log(double x);

/// x^y for x >= 0, with the ends of exp's range. x^0 and 1^y are 1, negative x gives NaN.
double pow(double x, double y);

/// |x| <= 2^40; beyond that NaN.
double cos(double x);
double sin(double x);

inline constexpr double kPi = 0x1.921fb54442d18p+1;  // the nearest double
inline constexpr double kLn2 = 0x1.62e42fefa39efp-1;

}  // namespace ferry::math
