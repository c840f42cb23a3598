// The table of cosines and sines, and the slowed frequencies of long contexts, in float64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/math.h"
#include "device/cpu/cpu_device.h"
#include "ops/rope/rope.h"

namespace ferry::ops {
namespace {

double mscale(double factor, double m) { return factor <= 1 ? 1 : 0.1 * m * math::log(factor) + 1; }

void check_config(const RopeConfig& c) {
  const char* problem = problem_of(c);
  check(
      problem == nullptr,
      "rope: {} (dim {}, theta {}, factor {}, original positions {}, turns {} and {}, beta {} and "
      "{})",
      problem == nullptr ? "" : problem,
      c.dim,
      c.theta,
      c.factor,
      c.original_max_position,
      c.turns_kept,
      c.turns_slowed,
      c.beta_fast,
      c.beta_slow);
}

double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

/// How much of each pair's frequency is slowed: 0 none, 1 all of it.
std::vector<double> slowed(const RopeConfig& c, const std::vector<double>& frequency) {
  std::vector<double> part(frequency.size(), c.scaling == RopeScaling::kLinear ? 1 : 0);
  const auto pairs = static_cast<int64_t>(part.size());
  if (c.scaling == RopeScaling::kLlama3) {
    for (size_t i = 0; i < part.size(); ++i) {
      const double turns =
          static_cast<double>(c.original_max_position) * frequency[i] / (2 * math::kPi);
      part[i] = 1 - clamp01((turns - c.turns_slowed) / (c.turns_kept - c.turns_slowed));
    }
  } else if (c.scaling == RopeScaling::kYarn) {
    const YarnRange range = yarn_range(c);
    // A ramp of no width is a step; Transformers widens it by a thousandth, which is the same.
    const double width =
        range.high > range.low ? static_cast<double>(range.high - range.low) : 1e-3;
    for (int64_t i = 0; i < pairs; ++i)
      part[static_cast<size_t>(i)] = clamp01(static_cast<double>(i - range.low) / width);
  }
  return part;
}

}  // namespace

YarnRange yarn_range(const RopeConfig& config) {
  check_config(config);
  const auto dim = static_cast<double>(config.dim);
  const auto pair_with = [&](double turns) {  // that turns so often in the original context
    return dim *
           math::log(static_cast<double>(config.original_max_position) / (turns * 2 * math::kPi)) /
           (2 * math::log(config.theta));
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
  for (int64_t i = 0; i < pairs; ++i)
    frequency[static_cast<size_t>(i)] =
        math::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.dim));
  double size = 1;
  if (config.scaling != RopeScaling::kNone) {
    const std::vector<double> part = slowed(config, frequency);
    for (size_t i = 0; i < part.size(); ++i)
      frequency[i] = frequency[i] / config.factor * part[i] + frequency[i] * (1 - part[i]);
  }
  if (config.scaling == RopeScaling::kYarn)
    size = config.attention_factor.value_or(mscale(config.factor, config.mscale) /
                                            mscale(config.factor, config.mscale_all_dim));
  // One after the other: of what goes to the device the host holds half at a time.
  const auto table_of = [&](double (*function)(double)) {
    constexpr int64_t kTogether = 64;  // positions of a task
    std::vector<float> values(static_cast<size_t>(positions * pairs));
    cpu_pool().parallel_for((positions + kTogether - 1) / kTogether, [&](int64_t task, int) {
      for (int64_t t = task * kTogether; t < std::min(positions, (task + 1) * kTogether); ++t)
        for (int64_t i = 0; i < pairs; ++i) {
          const double angle = static_cast<double>(t) * frequency[static_cast<size_t>(i)];
          values[static_cast<size_t>(t * pairs + i)] = static_cast<float>(function(angle) * size);
        }
    });
    return Tensor::from_f32(values, {positions, pairs}, device);
  };
  const Tensor cos = table_of(math::cos);
  return {cos, table_of(math::sin)};
}

float mla_softmax_scale(int64_t d_qk, const RopeConfig& config) {
  check(d_qk > 0, "mla_softmax_scale: d_qk {}", d_qk);
  const double m =
      config.scaling == RopeScaling::kYarn ? mscale(config.factor, config.mscale_all_dim) : 1;
  return static_cast<float>(m * m / std::sqrt(static_cast<double>(d_qk)));
}

}  // namespace ferry::ops
