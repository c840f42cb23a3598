// RoPE's frequencies and tables, in float64 on the host.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "ops/rope/rope.h"

namespace ferry::ops {
namespace {

/// base^exponent by repeated multiplication, exponent >= 0.
double power(double base, int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent /= 2, base *= base)
    if (exponent % 2 == 1) result *= base;
  return result;
}

/// The largest double r with r^n <= x, 0 < x <= 1: bisection, so that no library function decides bits.
double root(double x, int64_t n) {
  double low = 0, high = 1;
  if (x >= 1) return 1;
  for (;;) {
    const double middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) return low;
    (power(middle, n) <= x ? low : high) = middle;
  }
}

struct SineCosine {
  double sine, cosine;
};

/// Taylor series on [-pi/4, pi/4] after taking multiples of pi/2 away in three parts (Cody and Waite);
/// |x| up to 10^7 keeps the error below 10^-14.
SineCosine sine_cosine(double x) {
  const double n = std::nearbyint(x * 0.63661977236758134308);
  double r = std::fma(n, -1.57079632673412561417e+00, x);
  r = std::fma(n, -6.07710050630396597660e-11, r);
  r = std::fma(n, -2.02226624879595063154e-21, r);
  const double z = r * r;
  double s = -1.0 / 1307674368000.0;
  for (const double c : {1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0})
    s = std::fma(s, z, c);
  s *= r;
  double c = 1.0 / 20922789888000.0;
  for (const double k : {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0})
    c = std::fma(c, z, k);
  switch (static_cast<int64_t>(n) & 3) {
    case 0: return {s, c};
    case 1: return {c, -s};
    case 2: return {-s, -c};
    default: return {-c, s};
  }
}

/// YaRN's attention factor of a scale s.
double magnitude(const RopeConfig& c, double s) {
  return c.yarn && c.factor > 1 ? 0.1 * s * std::log(c.factor) + 1 : 1;
}

}  // namespace

YarnRange yarn_range(const RopeConfig& c) {
  const double dim = static_cast<double>(c.dim);
  const auto correction = [&](double rotations) {
    return dim * std::log(static_cast<double>(c.original_max_position) / (rotations * 2 * 3.14159265358979323846)) /
           (2 * std::log(c.theta));
  };
  return {std::max(std::floor(correction(c.beta_fast)), 0.0), std::min(std::ceil(correction(c.beta_slow)), dim - 1)};
}

std::vector<double> rope_frequencies(const RopeConfig& c) {
  check(c.dim >= 2 && c.dim % 2 == 0 && c.theta >= 1, "rope: dim {}, theta {}", c.dim, c.theta);
  const double step = root(1 / c.theta, c.dim / 2);  // theta^(-2 / dim)
  std::vector<double> f;
  for (int64_t i = 0; i < c.dim / 2; ++i) f.push_back(power(step, i));
  if (!c.yarn) return f;
  const YarnRange range = yarn_range(c);
  const double width = range.high == range.low ? 0.001 : range.high - range.low;
  for (size_t i = 0; i < f.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - range.low) / width, 0.0, 1.0);
    f[i] = f[i] / c.factor * ramp + f[i] * (1 - ramp);
  }
  return f;
}

RopeTable make_rope_table(const RopeConfig& c, int64_t positions, Device& device) {
  const std::vector<double> frequencies = rope_frequencies(c);
  const double m = magnitude(c, c.mscale) / magnitude(c, c.mscale_all_dim);
  std::vector<float> cosine, sine;
  for (int64_t p = 0; p < positions; ++p)
    for (const double f : frequencies) {
      const SineCosine v = sine_cosine(static_cast<double>(p) * f);
      cosine.push_back(static_cast<float>(v.cosine * m));
      sine.push_back(static_cast<float>(v.sine * m));
    }
  const Shape shape = {positions, c.dim / 2};
  return {Tensor::from_f32(cosine, shape, device), Tensor::from_f32(sine, shape, device)};
}

float mla_softmax_scale(int64_t width, const RopeConfig& c) {
  const double m = magnitude(c, c.mscale_all_dim);
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(width)));
}

}  // namespace ferry::ops
