// When a run goes back from a loss spike, and how far.
#include "train/spike.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
  EXPECT_EQ(after_step(none, 7, false, 2.0, 3.0), none);
  EXPECT_EQ(after_step(none, 7, false, 3.0, 3.0), none);
  EXPECT_EQ(after_step(none, 7, false, 3.5, 3.0), (Spike{7, 3.0}));
  EXPECT_EQ(after_step(none, 7, true, 2.0, 3.0), (Spike{7, 3.0}));
  EXPECT_EQ(after_step(none, 7, false, kNaN, Spike::kNoLine), (Spike{7, Spike::kNoLine}));
  // Without a line only refusals are of one.
  EXPECT_EQ(after_step(none, 7, false, 1e9, Spike::kNoLine), none);
  // What has become usual meanwhile is no matter: the line is the old one.
  EXPECT_EQ(after_step({7, 3.0}, 8, false, 3.5, 9.0), (Spike{7, 3.0}));
  EXPECT_EQ(after_step({7, 3.0}, 8, true, 1.0, 9.0), (Spike{7, 3.0}));
  EXPECT_EQ(after_step({7, 3.0}, 8, false, 2.9, 1.0), none);
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

TEST(Spike, IsGoneBackFromOnceWhenItHasLastedLongEnough) {
  const TrainSettings t = settings();
  const Spike spike{25, 3.0};
  for (int64_t step = 25; step < 60; ++step)
    EXPECT_EQ(goes_back(spike, step, t), step == 27) << step;
  EXPECT_FALSE(goes_back(Spike{}, 2, t));
  TrainSettings off = t;
  off.rewind_every = 0;
  EXPECT_FALSE(goes_back(spike, 27, off));
}

TEST(Spike, IsGoneBackFromToTheLastCheckpointBeforeItThatNoStopMade) {
  const TrainSettings t = settings();
  EXPECT_EQ(goes_back_to({25, 3}, 27, {10, 20}, t), 20);
  EXPECT_EQ(goes_back_to({25, 3}, 27, {10, 20, 24, 26}, t), 20);  // these a stop has made
  EXPECT_EQ(goes_back_to({21, 3}, 23, {10, 20}, t), 20);
  EXPECT_EQ(goes_back_to({20, 3}, 22, {10, 20}, t), 10);  // step 20 is of the spike
  EXPECT_EQ(goes_back_to({25, 3}, 27, {10}, t), 10);      // somebody has taken the other one away
  EXPECT_EQ(goes_back_to({25, 3}, 27, {}, t), std::nullopt);
  EXPECT_EQ(goes_back_to({8, 3}, 10, {10}, t), std::nullopt);
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

TEST(Rewinds, AreCountedInAllAndToOneStep) {
  Rewinds r = after_going_back({}, 20, 700);
  EXPECT_EQ(r, (Rewinds{1, 20, 1, 700}));
  r = after_going_back(r, 20, 300);
  EXPECT_EQ(r, (Rewinds{2, 20, 2, 1000}));
  r = after_going_back(r, 40, 200);
  EXPECT_EQ(r, (Rewinds{3, 40, 1, 1200}));
}

}  // namespace
}  // namespace ferry
