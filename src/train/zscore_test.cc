#include "train/zscore.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/random.h"

namespace ferry {
namespace {

TEST(ZScore, MeasuresAgainstTheValuesBefore) {
  ZScore z;
  for (size_t i = 0; i < ZScore::kLeast; ++i) EXPECT_FALSE(z.add(i % 2 == 0 ? 1 : 3));
  // 8 ones and 8 threes: mean 2, deviation sqrt(16 / 15).
  EXPECT_NEAR(*z.add(10), 8 / std::sqrt(16.0 / 15), 1e-12);
}

TEST(ZScore, TheLevelOfAScoreHasThatScore) {
  ZScore z;
  for (size_t i = 0; i < ZScore::kLeast; ++i) {
    EXPECT_FALSE(z.level(3));
    z.add(i % 2 == 0 ? 1 : 3);
  }
  for (const double score : {-2.0, 0.0, 5.0})
    EXPECT_NEAR(*ZScore(z).add(*z.level(score)), score, 1e-12);
}

TEST(ZScore, ForgetsWhatLeftTheWindow) {
  ZScore z;
  for (int i = 0; i < 50; ++i) z.add(1e6);
  const Random random(5, RandomPurpose::kTest, 1);
  std::vector<double> last;
  for (size_t i = 0; i < ZScore::kWindow; ++i) {
    last.push_back(random.normal(i));
    z.add(last.back());
  }
  EXPECT_EQ(z.values(), last);
  EXPECT_NEAR(*z.add(0), 0, 0.3);
}

TEST(ZScore, NothingToSayWithoutVariationAndOfNaN) {
  ZScore z;
  for (int i = 0; i < 40; ++i) EXPECT_FALSE(z.add(2));
  EXPECT_FALSE(z.add(std::numeric_limits<double>::quiet_NaN()));
  EXPECT_FALSE(z.add(std::numeric_limits<double>::infinity()));
  EXPECT_EQ(z.values().size(), 40u);
}

TEST(ZScore, GoesOnIdenticallyAfterRestore) {
  const Random random(6, RandomPurpose::kTest, 1);
  ZScore whole;
  for (uint64_t i = 0; i < 300; ++i) whole.add(random.normal(i));
  ZScore resumed;
  resumed.restore(whole.values());
  for (uint64_t i = 300; i < 600; ++i)
    ASSERT_EQ(whole.add(random.normal(i)), resumed.add(random.normal(i)));
}

}  // namespace
}  // namespace ferry
