#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace ferry {
namespace {

TEST(Schedule, WsdWarmsUpStaysAndDecays) {
  const Schedule s{.kind = Schedule::Kind::kWsd,
                   .decay = Schedule::Decay::kLinear,
                   .steps = 100,
                   .warmup_steps = 10,
                   .decay_steps = 20,
                   .lr = 2,
                   .min_ratio = 0.1};
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 0), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 9), 2);
  for (const int64_t step : {10, 50, 80}) EXPECT_DOUBLE_EQ(learning_rate_at(s, step), 2);
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 90), 2 * (0.1 + 0.9 * 0.5));
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 99), 2 * (0.1 + 0.9 * 0.05));
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 100), 0.2);
  EXPECT_DOUBLE_EQ(learning_rate_at(s, 1000), 0.2);
  Schedule root = s;
  root.decay = Schedule::Decay::kOneMinusSqrt;
  EXPECT_DOUBLE_EQ(learning_rate_at(root, 85), 2 * (0.1 + 0.9 * 0.5));  // 1 - sqrt(1/4)
}

TEST(Schedule, CosineMatchesLibmWithoutUsingIt) {
  const Schedule s{.kind = Schedule::Kind::kCosine,
                   .steps = 1000,
                   .warmup_steps = 100,
                   .lr = 3e-4,
                   .min_ratio = 0.1};
  for (int64_t step = 100; step <= 1000; ++step) {
    const double p = static_cast<double>(step - 100) / 900;
    EXPECT_NEAR(learning_rate_at(s, step),
                3e-4 * (0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * p))),
                1e-18 + 3e-4 * 4e-15)
        << step;
    EXPECT_LE(learning_rate_at(s, step), step == 100 ? 3e-4 : learning_rate_at(s, step - 1));
  }
}

TEST(Schedule, EveryPhaseMayBeEmpty) {
  const Schedule flat{.steps = 5, .lr = 1};
  for (int64_t step = 0; step < 5; ++step) EXPECT_EQ(learning_rate_at(flat, step), 1);
  EXPECT_EQ(learning_rate_at(flat, 5), 0);
  const Schedule only_warmup{
      .kind = Schedule::Kind::kCosine, .steps = 4, .warmup_steps = 4, .lr = 1};
  EXPECT_EQ(learning_rate_at(only_warmup, 3), 1);
  const Schedule only_decay{
      .decay = Schedule::Decay::kLinear, .steps = 4, .decay_steps = 4, .lr = 1};
  EXPECT_EQ(learning_rate_at(only_decay, 0), 1);
  EXPECT_EQ(learning_rate_at(only_decay, 3), 0.25);
}

TEST(Schedule, NamesTheFieldThatIsOutOfBounds) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto message = [](Schedule s) {
    return check_schedule(s) ? "" : check_schedule(s).error().message;
  };
  EXPECT_NE(message({.steps = 0}).find("steps"), std::string::npos);
  EXPECT_NE(message({.steps = 5, .warmup_steps = 6}).find("warmup_steps"), std::string::npos);
  EXPECT_NE(message({.steps = 5, .warmup_steps = 3, .decay_steps = 3}).find("decay_steps"),
            std::string::npos);
  EXPECT_NE(message({.steps = 5, .lr = nan}).find("lr"), std::string::npos);
  EXPECT_NE(message({.steps = 5, .lr = 1, .min_ratio = nan}).find("min_ratio"), std::string::npos);
  EXPECT_EQ(message({.steps = 5, .warmup_steps = 2, .decay_steps = 3}), "");
}

}  // namespace
}  // namespace ferry
