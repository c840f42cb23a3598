// What two devices' log-probabilities of the same answers are apart.
#include "rl/mismatch.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ferry::rl {
namespace {

using Answers = std::vector<std::vector<float>>;

Mismatch between(const Answers& drawn, const Answers& trained, double cap = 2) {
  std::vector<std::span<const float>> spans(drawn.begin(), drawn.end());
  return mismatch_of(spans, trained, cap);
}

TEST(Mismatch, OfEqualOnesIsNone) {
  const Answers a = {{-1, -2, -0.5f}, {}, {-3}};
  const Mismatch m = between(a, a);
  EXPECT_EQ(m.kl, 0);
  EXPECT_EQ(m.ratio_max, 1);
  EXPECT_EQ(m.capped, 0);
  EXPECT_EQ(between({{}, {}}, {{}, {}}).kl, 0);
}

TEST(Mismatch, IsTheDivergenceOfTraining) {
  // Ratios 3, 1/4, 1, 1.5 of training to what drew.
  const Answers drawn = {{-2, -2}, {-1, -1}};
  const Answers trained = {{-2 + std::log(3.0f), -2}, {-1 - std::log(4.0f), -1 + std::log(1.5f)}};
  const auto k3 = [](double r) { return r - std::log(r) - 1; };
  const Mismatch m = between(drawn, trained);
  EXPECT_NEAR(m.kl, (k3(3) + k3(0.25) + k3(1) + k3(1.5)) / 4, 1e-6);
  EXPECT_NEAR(m.ratio_max, 4, 1e-5);
  EXPECT_EQ(m.capped, 0.25);
  EXPECT_EQ(m.worst, k3(3) > k3(0.25) + k3(1.5) ? 0u : 1u);
  EXPECT_EQ(between(drawn, trained, 1.25).capped, 0.5);
}

TEST(Mismatch, ANumberThatIsNoneIsBeyondEveryBound) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Answers& trained : {Answers{{-1}, {nan, -1}, {-9}}, Answers{{-1}, {-1, nan}, {-9}}}) {
    const Mismatch m = between({{-1}, {-1, -1}, {-1}}, trained);
    EXPECT_TRUE(std::isnan(m.kl));
    EXPECT_TRUE(std::isnan(m.ratio_max));
    EXPECT_EQ(m.worst, 1u);
  }
}

}  // namespace
}  // namespace ferry::rl
