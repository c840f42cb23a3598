// Who computes whose share of a step again: as often as was asked for, never oneself, and no pair stays together.
#include "train/audit_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

namespace ferry {
namespace {

TEST(AuditPlan, InEachStepEveryRankIsLookedAtByOneOfTheOthersInTurn) {
  for (int ranks = 2; ranks <= 9; ++ranks) {
    std::set<std::pair<int, int>> pairs;
    for (int64_t step = 0; step < ranks - 1; ++step) {
      const std::vector<int> auditors = auditors_of(step, ranks, {.each_step = true});
      ASSERT_EQ(std::ssize(auditors), ranks);
      std::set<int> busy;
      for (int r = 0; r < ranks; ++r) {
        const int a = auditors[static_cast<size_t>(r)];
        EXPECT_TRUE(a >= 0 && a < ranks && a != r);
        busy.insert(a);
        pairs.emplace(r, a);
      }
      EXPECT_EQ(std::ssize(busy), ranks) << "each looks at one";
    }
    EXPECT_EQ(std::ssize(pairs), ranks * (ranks - 1));
  }
}

TEST(AuditPlan, OfEachPeriodOneRankIsLookedAtOnce) {
  constexpr int kRanks = 5;
  constexpr int64_t kEvery = 16;
  std::set<std::pair<int, int>> pairs;
  std::set<int64_t> places;
  for (int64_t period = 0; period < 400; ++period) {
    int found = 0;
    for (int64_t step = period * kEvery; step < (period + 1) * kEvery; ++step) {
      const std::vector<int> auditors = auditors_of(step, kRanks, {.every = kEvery, .seed = 7});
      for (int r = 0; r < kRanks; ++r) {
        const int a = auditors[static_cast<size_t>(r)];
        if (a < 0) continue;
        ++found;
        EXPECT_NE(a, r);
        pairs.emplace(r, a);
        places.insert(step % kEvery);
      }
    }
    ASSERT_EQ(found, 1) << "period " << period;
  }
  EXPECT_EQ(std::ssize(pairs), kRanks * (kRanks - 1));
  EXPECT_EQ(std::ssize(places), kEvery);
}

TEST(AuditPlan, NobodyIsLookedAtWhereNobodyCould) {
  const std::vector<int> nobody = {-1, -1, -1};
  EXPECT_EQ(auditors_of(3, 3, {.every = 0}), nobody);
  EXPECT_EQ(auditors_of(3, 1, {.each_step = true}), std::vector<int>{-1});
  EXPECT_NE(auditors_of(0, 3, {.every = 1}), nobody);
  EXPECT_NE(auditors_of(0, 3, {.every = 1, .seed = 1}), auditors_of(0, 3, {.every = 1, .seed = 3}));
}

}  // namespace
}  // namespace ferry
