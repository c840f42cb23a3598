// When a run goes back from a loss spike, and how far.
#include "train/spike.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace ferry {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TrainSettings settings() {
  TrainSettings t;
  t.rewind_every = 10;
  t.rewind_after = 3;
  t.rewind_loss_z = 4;
  return t;
}

TEST(Spike, IsWhatIsRefusedOrAboveTheLineThatWasDrawnBefore) {
  const Spike none;
  EXPECT_EQ(after_step(none, 7, 60, false, 2.0, 3.0), none);
  EXPECT_EQ(after_step(none, 7, 60, false, 3.0, 3.0), none);
  EXPECT_EQ(after_step(none, 7, 60, false, 3.5, 3.0), (Spike{7, 3.0, 60}));
  EXPECT_EQ(after_step(none, 7, 60, true, 2.0, 3.0), (Spike{7, 3.0, 60}));
  EXPECT_EQ(after_step(none, 7, 60, false, kNaN, Spike::kNoLine), (Spike{7, Spike::kNoLine, 60}));
  // Without a line only refusals are of one.
  EXPECT_EQ(after_step(none, 7, 60, false, 1e9, Spike::kNoLine), none);
  // What has become usual meanwhile is no matter: the line is the old one.
  EXPECT_EQ(after_step({7, 3.0, 60}, 8, 70, false, 3.5, 9.0), (Spike{7, 3.0, 60}));
  EXPECT_EQ(after_step({7, 3.0, 60}, 8, 70, true, 1.0, 9.0), (Spike{7, 3.0, 60}));
  EXPECT_EQ(after_step({7, 3.0, 60}, 8, 70, false, 2.9, 1.0), none);
}

TEST(Spike, TheLineIsWhereTheScoreWouldBeThatWasAskedFor) {
  TrainSettings t = settings();
  ZScore losses;
  EXPECT_EQ(spike_line(losses, t), Spike::kNoLine);  // too few to say
  for (int i = 0; i < 40; ++i) losses.add(i % 2 == 0 ? 1 : 3);
  const double line = spike_line(losses, t);
  EXPECT_NEAR(*ZScore(losses).add(line), 4, 1e-12);
  t.rewind_loss_z = 0;
  EXPECT_EQ(spike_line(losses, t), Spike::kNoLine);
}

// After each step, and not after one alone that could be missed: by a disk that does not answer then, or because
// train.rewind_after was another one when that step was made.
TEST(Spike, IsGoneBackFromWhenItHasLastedLongEnough) {
  const TrainSettings t = settings();
  const Spike spike{25, 3.0};
  for (int64_t step = 25; step < 60; ++step)
    EXPECT_EQ(goes_back(spike, step, t), step >= 27) << step;
  EXPECT_FALSE(goes_back(Spike{}, 2, t));
  TrainSettings off = t;
  off.rewind_every = 0;
  EXPECT_FALSE(goes_back(spike, 27, off));
}

TEST(Spike, IsGoneBackFromToTheLastCheckpointBeforeItThatNoStopMade) {
  const TrainSettings t = settings();
  using Places = std::vector<int64_t>;
  EXPECT_EQ(places_before({25, 3}, 27, {10, 20}, t), (Places{20, 10}));
  EXPECT_EQ(places_before({25, 3}, 27, {10, 20, 24, 26}, t), (Places{20, 10}));  // two of stops
  EXPECT_EQ(places_before({25, 3}, 27, {10, 15, 20, 30, 40}, t), (Places{20, 10}));
  EXPECT_EQ(places_before({21, 3}, 23, {10, 20}, t), (Places{20, 10}));
  EXPECT_EQ(places_before({20, 3}, 22, {10, 20}, t), Places{10});  // step 20 is of the spike
  EXPECT_EQ(places_before({25, 3}, 27, {10}, t),
            Places{10});  // somebody has taken the other one away
  EXPECT_EQ(places_before({25, 3}, 27, {}, t), Places{});
  EXPECT_EQ(places_before({8, 3}, 10, {0, 10}, t), Places{});
  // Where all are there, the first one is what the run's figures alone say.
  const Places all = {0, 10, 20, 30, 40, 50};
  for (int64_t since = 11; since < 50; ++since)
    EXPECT_EQ(places_before({since, 3}, since + 2, all, t).front(),
              before_spike({since, 3}, since + 2, t));
}

TEST(Spike, WhatItMayBeGoneBackToIsKept) {
  const TrainSettings t = settings();
  EXPECT_EQ(before_spike({}, 9, t), 0);
  EXPECT_EQ(before_spike({}, 20, t), 20);
  EXPECT_EQ(before_spike({}, 29, t), 20);
  EXPECT_EQ(before_spike({19, 3}, 30, t), 10);
  // Of whatever spike may begin behind a step, it is what is kept at that step, or came later.
  for (int64_t step = 1; step < 50; ++step)
    for (int64_t since = step + 1; since < 60; ++since)
      EXPECT_GE(before_spike({since, 3}, since, t), before_spike({}, step, t));
}

TEST(Rewinds, AreCountedInAllAndWithoutAPlaceFurtherOn) {
  Rewinds r = after_going_back({}, 20, 700);
  EXPECT_EQ(r, (Rewinds{1, 20, 20, 1, 700, {20}}));
  r = after_going_back(r, 20, 300);
  EXPECT_EQ(r, (Rewinds{2, 20, 20, 2, 1000, {20, 20}}));
  r = after_going_back(r, 40, 200);
  EXPECT_EQ(r, (Rewinds{3, 40, 40, 1, 1200, {20, 20, 40}}));
  r = after_going_back(r, 10, 100);
  EXPECT_EQ(r, (Rewinds{4, 10, 40, 2, 1300, {20, 20, 40, 10}}));
}

// Whatever the places are in turn: with P places there are at most P times train.rewinds of them.
TEST(Rewinds, HaveAnEndWhateverPlacesTakeTurns) {
  TrainSettings t = settings();
  t.rewinds = 3;
  for (const std::vector<int64_t>& turns :
       {std::vector<int64_t>{20, 10}, {10, 20}, {20, 10, 10}, {30, 10, 20}, {10, 20, 30}}) {
    Rewinds r;
    for (size_t i = 0; !has_gone_back_enough(r, turns[i % turns.size()], t); ++i) {
      r = after_going_back(r, turns[i % turns.size()], 1);
      ASSERT_LE(r.count, 9);
    }
    EXPECT_GE(r.count, 3);
  }
  // A later place is one that the run had not come to.
  const Rewinds spent = {.count = 3, .to = 20, .furthest = 20, .there = 3, .skipped_tokens = 3};
  EXPECT_TRUE(has_gone_back_enough(spent, 20, t));
  EXPECT_TRUE(has_gone_back_enough(spent, 10, t));
  EXPECT_FALSE(has_gone_back_enough(spent, 30, t));
}

}  // namespace
}  // namespace ferry
