#include "ops/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "device/cpu/cpu_device.h"

namespace ferry::ops {
namespace {

const RopeConfig kV3{.dim = 64, .theta = 10000, .yarn = true, .factor = 40, .original_max_position = 4096, .mscale = 1, .mscale_all_dim = 1};

TEST(Rope, YarnRangeAndScaleOfV3AndV2Lite) {
  EXPECT_EQ(yarn_range(kV3).low, 10);
  EXPECT_EQ(yarn_range(kV3).high, 23);
  EXPECT_NEAR(mla_softmax_scale(192, kV3), 0.13523378, 1e-8);
  RopeConfig lite = kV3;
  lite.mscale = lite.mscale_all_dim = 0.707;
  EXPECT_NEAR(mla_softmax_scale(192, lite), 0.11472139, 1e-8);
}

TEST(Rope, TableIsWithinAnUlpOfLibmAtEveryPosition) {
  const RopeConfig plain{.dim = 64};
  const RopeTable table = make_rope_table(plain, 163840, cpu_device());
  const std::vector<float> cosine = table.cosine.to_f32(), sine = table.sine.to_f32();
  double worst = 0;
  for (int64_t p = 0; p < 163840; p += 7)
    for (int64_t i = 0; i < 32; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / 64);
      const auto at = static_cast<size_t>(p * 32 + i);
      worst = std::max({worst, std::abs(static_cast<double>(cosine[at]) - std::cos(angle)), std::abs(static_cast<double>(sine[at]) - std::sin(angle))});
    }
  EXPECT_LT(worst, 0x1p-24);
}

TEST(Rope, ScoresDependOnDistanceAlone) {
  const RopeTable table = make_rope_table({.dim = 8}, 64, cpu_device());
  const std::vector<float> q = {1, 2, -1, 0.5f, 3, -2, 1, 1}, k = {0.5f, 1, 2, -1, 1, 0, -3, 2};
  const auto score = [&](int32_t at, int32_t before) {
    const std::vector<int32_t> pq = {at}, pk = {before};
    const auto a = rope(Tensor::from_f32(q, {1, 8}, cpu_device()), table, Tensor::from_i32(pq, {1}, cpu_device()), 0, true).to_f32();
    const auto b = rope(Tensor::from_f32(k, {1, 8}, cpu_device()), table, Tensor::from_i32(pk, {1}, cpu_device()), 0, true).to_f32();
    double s = 0;
    for (size_t i = 0; i < 8; ++i) s += static_cast<double>(a[i]) * static_cast<double>(b[i]);
    return s;
  };
  EXPECT_NEAR(score(5, 2), score(43, 40), 1e-5);
}

}  // namespace
}  // namespace ferry::ops
