// The table against libm in float64, YaRN's constants, and rotations that must undo each other.
#include "ops/rope/rope.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "device/cpu/cpu_device.h"

namespace ferry::ops {
namespace {

RopeConfig deepseek_v3() {
  return {.dim = 64,
          .theta = 10000,
          .scaling = RopeScaling::kYarn,
          .factor = 40,
          .original_max_position = 4096,
          .beta_fast = 32,
          .beta_slow = 1,
          .mscale = 1,
          .mscale_all_dim = 1};
}

/// The formulas again, with libm and nothing shared.
double expected_angle(const RopeConfig& c, int64_t position, int64_t i) {
  double f = std::pow(c.theta, -2.0 * static_cast<double>(i) / static_cast<double>(c.dim));
  if (c.scaling == RopeScaling::kLinear) f /= c.factor;
  if (c.scaling == RopeScaling::kLlama3) {  // as Transformers writes it, by wavelengths
    const auto old = static_cast<double>(c.original_max_position);
    const double wave = 2 * M_PI / f, shortest = old / c.turns_kept, longest = old / c.turns_slowed;
    const double smooth = (old / wave - c.turns_slowed) / (c.turns_kept - c.turns_slowed);
    if (wave > longest)
      f /= c.factor;
    else if (wave >= shortest)
      f = (1 - smooth) * f / c.factor + smooth * f;
  }
  if (c.scaling == RopeScaling::kYarn) {
    const auto corr = [&](double r) {
      return static_cast<double>(c.dim) *
             std::log(static_cast<double>(c.original_max_position) / (2 * M_PI * r)) /
             (2 * std::log(c.theta));
    };
    const double low = std::max(0.0, std::floor(corr(c.beta_fast)));
    const double high = std::min(static_cast<double>(c.dim - 1), std::ceil(corr(c.beta_slow)));
    const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - low) / (high - low)));
    f = f / c.factor * ramp + f * (1 - ramp);
  }
  return static_cast<double>(position) * f;
}

void expect_table(const RopeConfig& c, int64_t positions, double size) {
  const RopeTable table = make_rope_table(c, positions, cpu_device());
  const std::vector<float> cos = table.cos.to_f32(), sin = table.sin.to_f32();
  const int64_t pairs = c.dim / 2;
  for (int64_t t = 0; t < positions; ++t)
    for (int64_t i = 0; i < pairs; ++i) {
      const double angle = expected_angle(c, t, i);
      const auto at = static_cast<size_t>(t * pairs + i);
      // One rounding to f32, and what either side's float64 frequency may be off by.
      const double slack = angle * 0x1p-50 + 0x1p-51;
      const double x = std::cos(angle) * size, y = std::sin(angle) * size;
      ASSERT_LE(std::abs(static_cast<double>(cos[at]) - x), 0x1p-24 * std::abs(x) + slack)
          << t << " " << i;
      ASSERT_LE(std::abs(static_cast<double>(sin[at]) - y), 0x1p-24 * std::abs(y) + slack)
          << t << " " << i;
    }
}

TEST(Rope, TheTableIsThatOfFloat64) {
  expect_table({.dim = 64, .theta = 10000}, 9000, 1);
  expect_table({.dim = 6, .theta = 5e6}, 200000, 1);
  expect_table(deepseek_v3(), 9000, 1);
  expect_table({.dim = 8, .scaling = RopeScaling::kLinear, .factor = 4}, 9000, 1);
  expect_table({.dim = 128,  // Llama 3.1's
                .theta = 5e5,
                .scaling = RopeScaling::kLlama3,
                .factor = 8,
                .original_max_position = 8192},
               9000,
               1);
}

TEST(Rope, TheTableDependsOnNothingButPositionsAndPairs) {
  const auto bits = [](const Tensor& t) {
    std::vector<uint32_t> all;
    for (const float f : t.to_f32()) all.push_back(std::bit_cast<uint32_t>(f));
    return all;
  };
  constexpr int64_t kPositions = 1000;
  set_cpu_threads(1);
  const RopeTable one = make_rope_table(deepseek_v3(), kPositions, cpu_device());
  for (const int threads : {2, 5}) {
    set_cpu_threads(threads);
    for (const int64_t positions : {kPositions, int64_t{1729}}) {
      const RopeTable table = make_rope_table(deepseek_v3(), positions, cpu_device());
      EXPECT_EQ(bits(table.cos.slice(0, 0, kPositions)), bits(one.cos));
      EXPECT_EQ(bits(table.sin.slice(0, 0, kPositions)), bits(one.sin));
    }
  }
  set_cpu_threads(0);
}

TEST(Rope, YarnScalesTheTableByTheRatioOfItsMscales) {
  RopeConfig c = deepseek_v3();
  c.mscale = 0.707;
  c.mscale_all_dim = 0;
  expect_table(c, 100, 0.1 * 0.707 * std::log(40.0) + 1);
  c.attention_factor = 1.375;  // said, it is that
  expect_table(c, 100, 1.375);
}

TEST(Rope, YarnRangesAndScalesAreTheModels) {
  const YarnRange v3 = yarn_range(deepseek_v3());
  EXPECT_EQ(v3.low, 10);
  EXPECT_EQ(v3.high, 23);
  const YarnRange v4 = yarn_range({.dim = 64,
                                   .theta = 160000,
                                   .scaling = RopeScaling::kYarn,
                                   .factor = 16,
                                   .original_max_position = 65536});
  EXPECT_EQ(v4.low, 15);
  EXPECT_EQ(v4.high, 25);
  EXPECT_FLOAT_EQ(mla_softmax_scale(192, deepseek_v3()), 0.13523378f);
  RopeConfig lite = deepseek_v3();
  lite.mscale_all_dim = 0.707;
  EXPECT_FLOAT_EQ(mla_softmax_scale(192, lite), 0.11472139f);
  EXPECT_FLOAT_EQ(mla_softmax_scale(64, {}), 0.125f);
}

Segments at_positions(const std::vector<int32_t>& position) {
  return Segments::cached(position, std::vector<int32_t>(position.size()), cpu_device());
}

TEST(Rope, KnowsADistanceNotAPlace) {
  const RopeTable table = make_rope_table({.dim = 8}, 100, cpu_device());
  std::vector<float> values;
  for (int i = 0; i < 16; ++i) values.push_back(static_cast<float>(i * i % 7) - 3);
  const Tensor x = Tensor::from_f32(values, {2, 8}, cpu_device());
  for (const bool interleaved : {true, false}) {
    const auto product = [&](std::vector<int32_t> at) {
      const std::vector<float> y = rope(x, table, at_positions(at), 0, interleaved).to_f32();
      double sum = 0;
      for (size_t i = 0; i < 8; ++i)
        sum += static_cast<double>(y[i]) * static_cast<double>(y[8 + i]);
      return sum;
    };
    EXPECT_NEAR(product({3, 10}), product({90, 97}), 1e-4);
    EXPECT_GT(std::abs(product({3, 10}) - product({3, 11})), 1e-2);
  }
}

TEST(Rope, StridedViewsAndRefusals) {
  const RopeTable table = make_rope_table({.dim = 4}, 10, cpu_device());
  std::vector<float> values(5 * 12);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const Tensor all = Tensor::from_f32(values, {5, 12}, cpu_device());
  const Segments position = at_positions({0, 1, 2, 3, 9});
  const Tensor part = all.slice(1, 6, 12);
  Tensor packed = Tensor::empty({5, 6}, DType::kF32, cpu_device());
  packed.assign_f32(part.to_f32());
  EXPECT_EQ(rope(part, table, position, 2, true).to_f32(),
            rope(packed, table, position, 2, true).to_f32());
  EXPECT_THROW(rope(part, table, position, 3, true), Bug);
  EXPECT_THROW(rope(part, table, at_positions({0, 1, 2, 3, 10}), 0, true), Bug);
  EXPECT_THROW(make_rope_table({.dim = 5}, 10, cpu_device()), Bug);
}

}  // namespace
}  // namespace ferry::ops
