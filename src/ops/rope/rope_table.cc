// The table of cosines and sines, and YaRN. Everything in float64 from +, -, *, / and fma alone.
#include <cmath>

#include "base/check.h"
#include "ops/rope/rope.h"

namespace ferry::ops {
namespace {

constexpr double kLn2 = 0.693147180559945286;  // nearest double
constexpr double kLn2Rest = 2.319046813846299558e-17;
constexpr double kHalfPi = 1.570796326794896558;
constexpr double kHalfPiRest = 6.123233995736766036e-17;

/// ln x for normal x > 0. With x = m 2^e, m in [0.7, 1.5): 2 atanh((m - 1) / (m + 1)) + e ln 2.
double natural_log(double x) {
  int e = 0;
  double m = std::frexp(x, &e);  // exact
  if (m < 0.7) {
    m *= 2;
    --e;
  }
  const double s = (m - 1) / (m + 1), s2 = s * s;  // |s| < 0.18: the 13th term is below 2^-60
  double p = 0;
  for (int n = 25; n >= 1; n -= 2) p = p * s2 + 1.0 / n;
  return 2 * s * p + e * kLn2;
}

/// e^x for |x| < 700: x = n ln 2 + r, then 1 + r + r²/2! + ... to the 14th power.
double exponential(double x) {
  const double n = std::floor(x / kLn2 + 0.5);
  const double r = std::fma(-n, kLn2Rest, std::fma(-n, kLn2, x));
  double p = 1;
  for (int i = 14; i >= 1; --i) p = p * r / i + 1;
  return std::ldexp(p, static_cast<int>(n));  // exact
}

struct Turn {
  double cos, sin;
};

/// For 0 <= x < 2^40: x = n pi/2 + r with pi/2 in two parts, each product rounded once by fma; then
/// Taylor series on |r| <= pi/4, whose first term left out is below 2^-56.
Turn turn(double x) {
  const double n = std::floor(x / kHalfPi + 0.5);
  const double r = std::fma(-n, kHalfPiRest, std::fma(-n, kHalfPi, x)), r2 = r * r;
  double s = 1, c = 1;
  for (int i = 16; i >= 2; i -= 2) {
    s = 1 - s * r2 / (i * (i + 1));
    c = 1 - c * r2 / (i * (i - 1));
  }
  s *= r;
  switch (static_cast<int64_t>(n) % 4) {
    case 0: return {c, s};
    case 1: return {-s, c};
    case 2: return {-c, -s};
    default: return {s, -c};
  }
}

double mscale(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * natural_log(factor) + 1;
}

void check_config(const RopeConfig& c) {
  const char* problem = problem_of(c);
  check(problem == nullptr,
        "rope: {} (dim {}, theta {}, YaRN: factor {}, original positions {}, beta {} and {})",
        problem == nullptr ? "" : problem,
        c.dim,
        c.theta,
        c.factor,
        c.original_max_position,
        c.beta_fast,
        c.beta_slow);
}

}  // namespace

YarnRange yarn_range(const RopeConfig& config) {
  check_config(config);
  const auto dim = static_cast<double>(config.dim);
  const auto pair_with = [&](double turns) {  // that turns so often in the original context
    return dim *
           natural_log(static_cast<double>(config.original_max_position) / (turns * 4 * kHalfPi)) /
           (2 * natural_log(config.theta));
  };
  const auto clamped = [&](double i) {
    return static_cast<int64_t>(i < 0 ? 0 : i > dim - 1 ? dim - 1 : i);
  };
  return {clamped(std::floor(pair_with(config.beta_fast))),
          clamped(std::ceil(pair_with(config.beta_slow)))};
}

RopeTable make_rope_table(const RopeConfig& config, int64_t positions, Device& device) {
  check_config(config);
  const int64_t pairs = config.dim / 2;
  std::vector<double> frequency(static_cast<size_t>(pairs));
  const double log_theta = natural_log(config.theta);
  for (int64_t i = 0; i < pairs; ++i)
    frequency[static_cast<size_t>(i)] =
        exponential(-2.0 * static_cast<double>(i) / static_cast<double>(config.dim) * log_theta);
  double size = 1;
  if (config.yarn) {
    const YarnRange range = yarn_range(config);
    // A ramp of no width is a step; Transformers widens it by a thousandth, which is the same.
    const double width =
        range.high > range.low ? static_cast<double>(range.high - range.low) : 1e-3;
    for (int64_t i = 0; i < pairs; ++i) {
      double& f = frequency[static_cast<size_t>(i)];
      const double x = static_cast<double>(i - range.low) / width, ramp = x < 0 ? 0 : x > 1 ? 1 : x;
      f = f / config.factor * ramp + f * (1 - ramp);
    }
    size = mscale(config.factor, config.mscale) / mscale(config.factor, config.mscale_all_dim);
  }
  std::vector<float> cos(static_cast<size_t>(positions * pairs)), sin(cos.size());
  for (int64_t t = 0; t < positions; ++t)
    for (int64_t i = 0; i < pairs; ++i) {
      const Turn angle = turn(static_cast<double>(t) * frequency[static_cast<size_t>(i)]);
      cos[static_cast<size_t>(t * pairs + i)] = static_cast<float>(angle.cos * size);
      sin[static_cast<size_t>(t * pairs + i)] = static_cast<float>(angle.sin * size);
    }
  return {Tensor::from_f32(cos, {positions, pairs}, device),
          Tensor::from_f32(sin, {positions, pairs}, device)};
}

float mla_softmax_scale(int64_t d_qk, const RopeConfig& config) {
  check(d_qk > 0, "mla_softmax_scale: d_qk {}", d_qk);
  const double m = config.yarn ? mscale(config.factor, config.mscale_all_dim) : 1;
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(d_qk)));
}

}  // namespace ferry::ops
