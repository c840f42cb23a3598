// What is counted of many answers.
#include "rl/score.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ferry::rl {
namespace {

/// C(n, k) from its definition.
double choose(int64_t n, int64_t k) {
  double c = 1;
  for (int64_t i = 1; i <= k; ++i) c = c * static_cast<double>(n - k + i) / static_cast<double>(i);
  return c;
}

TEST(Score, PassAtKIsThePublishedEstimator) {
  for (int64_t n = 1; n <= 12; ++n)
    for (int64_t c = 0; c <= n; ++c)
      for (int64_t k = 1; k <= n; ++k)
        EXPECT_NEAR(pass_at_k(n, c, k), n - c < k ? 1 : 1 - choose(n - c, k) / choose(n, k), 1e-12)
            << n << " " << c << " " << k;
  EXPECT_NEAR(pass_at_k(1000, 3, 100), 0.2713, 1e-4);  // 1 - 900 * 899 * 898 / (1000 * 999 * 998)
}

TEST(Score, IntervalsAreWilsons) {
  // 8 of 10: 0.490 to 0.943 (Wilson 1927).
  const std::vector<double> eight = {1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  const Interval i = interval_95(eight, 1);
  EXPECT_NEAR(i.low, 0.4902, 5e-4);
  EXPECT_NEAR(i.high, 0.9433, 5e-4);
  const std::vector<double> all(20, 1.0), halves(20, 0.5);
  EXPECT_LT(interval_95(all, 8).low, 0.9);
  EXPECT_EQ(interval_95(all, 8).high, 1);
  // Answers of one task that agree tell no more than one of them; those that vary do.
  const std::vector<double> split = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
  EXPECT_LT(interval_95(halves, 8).high - interval_95(halves, 8).low,
            interval_95(split, 8).high - interval_95(split, 8).low);
  // Of one task, however often it was asked, the next task's score cannot be told: as wide as of one
  // answer, 0.5 +- 1.96 sqrt(1/4 + 1.96^2 / 4) / (1 + 1.96^2).
  const std::vector<double> one = {0.5};
  EXPECT_NEAR(interval_95(one, 1000).low, 0.0546, 5e-4);
  EXPECT_NEAR(interval_95(one, 1000).high, 0.9454, 5e-4);
}

TEST(Score, SummaryWeighsTasksAlike) {
  const std::vector<TaskScore> scores = {
      {.right = 4, .voted = 1, .tokens = 40, .thought_tokens = 20, .ended = 4},
      {.right = 1, .voted = 0.5, .tokens = 80, .thought_tokens = 0, .ended = 2},
      {.right = 0, .voted = 0, .tokens = 0, .thought_tokens = 0, .ended = 0}};
  std::vector<TaskScore> untold = scores;
  untold[1].thought_tokens.reset();
  EXPECT_FALSE(summary(untold, 4).mean_thought_tokens);
  const std::vector<int64_t> ks = {1, 2, 4};
  const ScoreSummary s = summary(scores, 4, ks);
  EXPECT_DOUBLE_EQ(s.pass_at_1, 1.25 / 3);
  ASSERT_EQ(s.pass_at.size(), 3u);
  EXPECT_DOUBLE_EQ(s.pass_at[0].share, s.pass_at_1);
  EXPECT_EQ(s.pass_at[0].interval.low, s.interval.low);
  EXPECT_EQ(s.pass_at[0].interval.high, s.interval.high);
  EXPECT_DOUBLE_EQ(s.pass_at[1].share, (1 + 0.5 + 0) / 3);  // 1 - C(3, 2) / C(4, 2)
  EXPECT_DOUBLE_EQ(s.pass_at[2].share, 2.0 / 3);
  for (const PassAt& at : s.pass_at) {
    EXPECT_LT(at.interval.low, at.share) << at.k;
    EXPECT_GT(at.interval.high, at.share) << at.k;
  }
  // Of all samples at once there is one such draw a task: Wilson's interval of 2 of 3.
  EXPECT_NEAR(s.pass_at[2].interval.low, 0.2077, 5e-4);
  EXPECT_NEAR(s.pass_at[2].interval.high, 0.9385, 5e-4);
  EXPECT_TRUE(summary(scores, 4).pass_at.empty());
  EXPECT_DOUBLE_EQ(s.voted, 0.5);
  EXPECT_DOUBLE_EQ(s.mean_tokens, 10);
  EXPECT_DOUBLE_EQ(*s.mean_thought_tokens, 20.0 / 12);
  EXPECT_DOUBLE_EQ(s.ended, 0.5);
}

}  // namespace
}  // namespace ferry::rl
