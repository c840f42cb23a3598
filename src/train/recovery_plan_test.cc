// Who can give what to whom, and what becomes of a step: for all subsets of ranks that are left, wherever they were;
// and a simulated run in which ranks are lost at every moment, in recoveries too, whose shards are what they should be.
#include "train/recovery_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>

#include "base/random.h"

namespace ferry {
namespace {

using Stage = Standing::Stage;

TEST(RecoveryPlan, OfEachOwnerAndItsReplicaOneMustBeLeft) {
  for (int ranks = 1; ranks <= 9; ++ranks)
    for (unsigned subset = 0; subset < 1u << ranks; ++subset) {
      std::vector<Standing> standings;
      std::vector<bool> whole;
      bool expected = true;
      for (int r = 0; r < ranks; ++r) {
        whole.push_back((subset >> r & 1) != 0);
        standings.push_back(
            {whole.back() ? Stage::kBetween : Stage::kNothing, whole.back() ? 7 : 0});
        if ((subset >> r & 1) == 0 && (subset >> ((r + 1) % ranks) & 1) == 0) expected = false;
      }
      EXPECT_EQ(!lost_with_replica(whole), expected) << ranks << " " << subset;
      const Result<RecoveryPlan> plan = plan_recovery(standings);
      ASSERT_EQ(plan.has_value(), expected) << ranks << " " << subset;
      if (!plan) continue;
      EXPECT_EQ(plan->done, 7);
      EXPECT_FALSE(plan->forward);
      EXPECT_TRUE(whole[static_cast<size_t>(plan->teller)]);
      for (int owner = 0; owner < ranks; ++owner) {
        const int giver = plan->giver[static_cast<size_t>(owner)];
        EXPECT_TRUE(whole[static_cast<size_t>(giver)]);
        EXPECT_TRUE(giver == owner || giver == replica_of(owner, ranks));
        EXPECT_EQ(plan->fresh[static_cast<size_t>(owner)], !whole[static_cast<size_t>(owner)]);
        EXPECT_FALSE(plan->behind[static_cast<size_t>(owner)]);
      }
    }
}

TEST(RecoveryPlan, AStepIsFinishedIfAnybodyKnowsThatAllHadPreparedIt) {
  const Standing none{Stage::kNothing, 0}, between{Stage::kBetween, 4},
      prepared{Stage::kPrepared, 4}, committed{Stage::kCommitted, 4}, after{Stage::kBetween, 5};
  const struct {
    std::vector<Standing> ranks;
    int64_t done;
    bool forward;
    int hears;
    std::vector<bool> prepared, behind;
  } cases[] = {
      {{between, prepared, none}, 4, false, 0, {0, 0, 0}, {0, 0, 0}},
      {{none, prepared, prepared}, 4, false, 1, {0, 0, 0}, {0, 0, 0}},
      {{prepared, committed, none}, 5, true, 1, {1, 0, 0}, {1, 1, 0}},
      {{after, prepared, none}, 5, true, 0, {0, 1, 0}, {0, 1, 0}},
      {{none, committed, after}, 5, true, 1, {0, 0, 0}, {0, 1, 0}},
      {{committed, committed, none}, 5, true, 0, {0, 0, 0}, {1, 1, 0}},
      {{after, none, after}, 5, false, 0, {0, 0, 0}, {0, 0, 0}},
  };
  for (const auto& c : cases) {
    const Result<RecoveryPlan> plan = plan_recovery(c.ranks);
    ASSERT_TRUE(plan) << plan.error().message;
    EXPECT_EQ(plan->done, c.done);
    EXPECT_EQ(plan->forward, c.forward);
    EXPECT_EQ(plan->hears, c.hears);
    EXPECT_EQ(plan->prepared, c.prepared);
    EXPECT_EQ(plan->behind, c.behind);
  }
}

TEST(RecoveryPlan, WhatCannotBeIsRefused) {
  const Standing between{Stage::kBetween, 4}, after{Stage::kBetween, 5}, far{Stage::kBetween, 6};
  for (const std::vector<Standing>& ranks :
       {std::vector<Standing>{between, after},
        std::vector<Standing>{between, far},
        std::vector<Standing>{{Stage::kCommitted, 5}, {Stage::kPrepared, 4}},
        std::vector<Standing>{{Stage::kPrepared, 5}, {Stage::kPrepared, 4}},
        std::vector<Standing>{between, {Stage::kCommitted, 4}}}) {
    const Result<RecoveryPlan> plan = plan_recovery(ranks);
    ASSERT_FALSE(plan);
    EXPECT_NE(plan.error().message.find("not of one run"), std::string::npos);
  }
}

/// A run of the rules alone. Of each rank, of each owner's shard: the step that its weights are of, and its state's;
/// and of which step the squares are that it last heard. Messages are what matters of them: "prepared", "weights of an
/// owner", who may own none. Whoever is lost may have said what it said to some and not to others.
struct Simulation {
  struct Rank {
    Standing standing{Stage::kBetween, 0};
    std::vector<int64_t> weights, state;  // -1: it holds no such
    int64_t squares = 0;
    std::vector<bool> heard_prepared, got;
    bool alive = true;
  };
  const int count;
  const Random random;
  uint64_t drawn = 0;
  std::vector<Rank> ranks;
  std::vector<bool> owns;  // anything

  Simulation(int n, uint64_t seed) : count(n), random(77, RandomPurpose::kTest, seed) {
    for (int r = 0; r < n; ++r) {
      Rank rank;
      for (int o = 0; o < n; ++o) {
        rank.weights.push_back(0);
        rank.state.push_back(holds(r, o) ? 0 : -1);
      }
      forget(rank);
      ranks.push_back(rank);
      owns.push_back(r == 0 || draw(2) > 0);
    }
  }
  int draw(int n) { return static_cast<int>(random.below(drawn++, static_cast<uint64_t>(n))); }
  bool holds(int r, int owner) const { return holds_of(r, owner, count); }
  void forget(Rank& r) const {
    r.heard_prepared.assign(static_cast<size_t>(count), false);
    r.got.assign(static_cast<size_t>(count), false);
  }
  void update(int r) {
    Rank& rank = at(r);
    for (int o = 0; o < count; ++o)
      if (holds(r, o)) {
        ++rank.weights[static_cast<size_t>(o)];
        ++rank.state[static_cast<size_t>(o)];
      }
    rank.squares = rank.standing.done + 1;
    rank.standing.stage = Stage::kCommitted;
  }
  void finish(int r) {
    Rank& rank = at(r);
    rank.standing = {Stage::kBetween, rank.standing.done + 1};
    forget(rank);
  }
  Rank& at(int r) { return ranks[static_cast<size_t>(r)]; }

  /// One rank does one thing that it can do. A message that it hears was said by somebody who is that far, or was,
  /// before he was lost.
  void move(std::map<std::pair<int, int64_t>, bool>& said_prepared,
            std::map<std::pair<int, int64_t>, bool>& said_weights) {
    const int r = draw(count);
    Rank& me = at(r);
    if (!me.alive) return;
    const int64_t next = me.standing.done + 1;
    if (me.standing.stage == Stage::kBetween) {
      // To prepare a step takes everybody's gradients of it, so everybody who is after the one before.
      for (const Rank& other : ranks)
        if (!other.alive || other.standing.done < me.standing.done) return;
      me.standing.stage = Stage::kPrepared;
      said_prepared[{r, next}] = true;
      return;
    }
    const int other = draw(count);
    const auto o = static_cast<size_t>(other);
    if (me.standing.stage == Stage::kPrepared) {
      if (said_prepared[{other, next}] || other == r) me.heard_prepared[o] = true;
      if (std::count(me.heard_prepared.begin(), me.heard_prepared.end(), true) < count) return;
      update(r);
      said_weights[{r, next}] = true;
      return;
    }
    if (holds(r, other))
      me.got[o] = true;
    else if (said_weights[{other, next}] || !owns[o]) {
      me.got[o] = true;
      me.weights[o] = next;
    }
    if (std::count(me.got.begin(), me.got.end(), true) == count) finish(r);
  }

  /// The parts of Run::settle() that a rank goes through, each when what it waits for is there.
  enum Part { kHears, kGets, kFinishes, kAgrees, kStands, kThrough };

  /// Whether it gets through the part.
  bool pass(const RecoveryPlan& plan, const std::vector<int>& parts, int r) {
    const auto i = static_cast<size_t>(r);
    const auto is_at = [&](int other, Part part) {
      return parts[static_cast<size_t>(other)] >= part;
    };
    Rank& me = at(r);
    switch (parts[i]) {
      case kHears:
        if (plan.prepared[i]) {
          EXPECT_EQ(at(plan.hears).squares, plan.done) << "it has not heard of this step";
          update(r);
        } else if (me.standing.stage == Stage::kPrepared) {
          me.standing.stage = Stage::kBetween;
        }
        forget(me);
        return true;
      case kGets: {
        bool all = true;
        for (int o = 0; o < count; ++o) {
          const auto owner = static_cast<size_t>(o);
          if (!plan.lacks_weights(r, o) || me.got[owner]) continue;
          // Who owns nothing is not waited for.
          if (owns[owner] && !is_at(plan.giver[owner], kGets)) {
            all = false;
            continue;
          }
          me.got[owner] = true;
          const Rank& giver = at(plan.giver[owner]);
          me.weights[owner] = owns[owner] ? giver.weights[owner] : plan.done;
          if (plan.lacks_state(r, o))
            me.state[owner] = owns[owner] ? giver.state[owner] : plan.done;
        }
        return all;
      }
      case kFinishes:
        if (plan.fresh[i]) return is_at(plan.teller, kAgrees);
        if (plan.behind[i]) finish(r);
        return true;
      case kAgrees:
        for (int other = 0; other < count; ++other)
          if (!is_at(other, kAgrees)) return false;
        return true;
      case kStands:
        me.standing = {Stage::kBetween, plan.done};
        forget(me);
        return true;
    }
    return false;
  }

  /// False: it was cut short by another loss, after so many parts.
  bool recover(int parts) {
    std::vector<Standing> standings;
    for (const Rank& r : ranks) standings.push_back(r.standing);
    const Result<RecoveryPlan> plan = plan_recovery(standings);
    EXPECT_TRUE(plan) << plan.error().message;
    if (!plan) return true;
    const int slow = draw(count);
    std::vector<int> at_part(ranks.size(), kHears);
    for (Rank& r : ranks) r.got.assign(ranks.size(), false);
    while (std::count(at_part.begin(), at_part.end(), kThrough) < count) {
      const int r = draw(count);
      if (r == slow && draw(50) > 0) continue;  // far behind the others
      if (!pass(*plan, at_part, r)) continue;
      if (parts-- <= 0) return false;
      ++at_part[static_cast<size_t>(r)];
    }
    return true;
  }

  /// A rank whose loss the others can make up for, with a successor in its place.
  void lose_one() {
    const int victim = draw(count);
    std::vector<bool> whole;
    for (const Rank& r : ranks) whole.push_back(r.standing.stage != Stage::kNothing);
    whole[static_cast<size_t>(victim)] = false;
    if (lost_with_replica(whole)) return;
    Rank& r = at(victim);
    r.standing = {Stage::kNothing, 0};
    r.squares = -1;
    r.weights.assign(static_cast<size_t>(count), -1);
    r.state.assign(static_cast<size_t>(count), -1);
    forget(r);
  }
};

TEST(RecoveryPlan, WhoeverIsLostAndWheneverAllShardsAreOfOneStep) {
  int forward = 0, again = 0;
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    Simulation s(2 + static_cast<int>(seed % 5), seed);
    for (int loss = 0; loss < 6; ++loss) {
      std::map<std::pair<int, int64_t>, bool> said_prepared, said_weights;  // of this epoch
      for (int m = s.draw(120 * s.count); m > 0; --m) s.move(said_prepared, said_weights);
      int64_t before = 0;
      for (const auto& r : s.ranks) before = std::max(before, r.standing.done);
      do s.lose_one();
      while (!s.recover(s.draw(2) == 0 ? s.draw(Simulation::kThrough * s.count) : 1 << 20));
      const int64_t done = s.at(0).standing.done;
      (done > before ? forward : again) += 1;
      for (int r = 0; r < s.count; ++r) {
        ASSERT_EQ(s.at(r).standing, (Standing{Stage::kBetween, done})) << "seed " << seed;
        for (int o = 0; o < s.count; ++o) {
          ASSERT_EQ(s.at(r).weights[static_cast<size_t>(o)], done) << "seed " << seed;
          ASSERT_EQ(s.at(r).state[static_cast<size_t>(o)], s.holds(r, o) ? done : -1)
              << "seed " << seed;
        }
      }
    }
  }
  // Both are met.
  EXPECT_GT(forward, 1000);
  EXPECT_GT(again, 1000);
}

}  // namespace
}  // namespace ferry
