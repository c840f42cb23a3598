// Bits that flip in a rank's memory, or in what it computes: the rank is named, before the step changes anything of the
// run, and nobody else is. A run in which nothing flips is the one of a single process, and nobody is named in it.
#include "train/corruption_guard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>

#include "base/fault.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "train/loop.h"
#include "train/ranks_test_support.h"
#include "train/train_step.h"

namespace ferry {
namespace {

constexpr int64_t kSteps = 3, kMicroBatches = 6;

/// A bit that flips: at which rank, in which step, where. `finished`: when the rank's turn has come again so often in
/// the step. Others pass the point, too, but not before this rank has.
struct Flip {
  int rank = 0;
  int64_t step = 0;
  const char* point = "";
  int finished = 0;
  uint64_t passing = 1, bit = 0;
};

/// What became of one rank.
struct Seen {
  std::string spoiled;      // the rank that says it is
  std::string lost;         // why all begin again
  bool left_alone = false;  // by another rank's end, or by what harmed a message
  bool flipped = false;     // it came to where its bit was to flip
  std::vector<std::vector<float>> weights, state;
  int said = 0;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Makes the steps by so many ranks; of each rank what was seen.
std::vector<Seen> trained(int ranks,
                          OptimizerSettings::Kind kind,
                          const std::optional<AuditSettings>& audits,
                          const std::optional<Flip>& flip = {}) {
  std::vector<Seen> all(static_cast<size_t>(ranks));
  as_ranks(ranks, [&](TakingTurns& c) {
    Seen& seen = all[static_cast<size_t>(c.rank())];
    auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
    ASSERT_TRUE(model) << model.error().message;
    models::initialise(**model, 3);
    Optimizer optimizer = optimizer_at({c.rank(), c.ranks()}, {.kind = kind}, (*model)->weights());
    SharedStep shared(c, optimizer.weights(), kPatienceS);
    std::optional<CorruptionGuard> guard;
    if (audits)
      guard.emplace(*audits, shared, optimizer, (*model)->weights(), [&](const std::string&) {
        ++seen.said;
      });
    TrainStep step(**model,
                   optimizer,
                   {.mtp_every = 2, .balance_alpha = 0.01, .bias_update_speed = 0.01, .clip = 0.5},
                   &shared,
                   nullptr,
                   guard ? &*guard : nullptr);
    bool armed = false;
    int finished = 0;
    int64_t s = 0;
    const auto arm = [&] {
      if (!flip || armed || c.rank() != flip->rank || s != flip->step || finished != flip->finished)
        return;
      armed = true;
      arm_faults(std::string(flip->point) + "@" + std::to_string(flip->rank) + ":" +
                 std::to_string(flip->passing) + ":flip" + std::to_string(flip->bit));
    };
    c.when_finished([&] {
      ++finished;
      arm();
    });
    try {
      if (guard) guard->wrote();
      for (; s < kSteps; ++s) {
        finished = 0;
        arm();
        const StepGradients g = step.gradients(s, batches_of(s, kMicroBatches));
        EXPECT_TRUE(g.finite || flip);
        step.update(0.02);
      }
      if (guard) guard->compare(kSteps);
      shared.collect_state(kSteps, optimizer);
      if (guard) guard->compare_collected(kSteps);
    } catch (const Spoiled& e) {
      seen.spoiled = e.what();
    } catch (const StateLost& e) {
      seen.lost = e.what();
    } catch (const comm::LinkError&) {
      seen.left_alone = true;
      // As before the run goes on with a successor.
      try {
        step.look_at_own();
      } catch (const Spoiled& spoiled) {
        seen.spoiled = spoiled.what();
      }
    }
    c.when_finished({});
    for (const Weight* w : (*model)->weights()) seen.weights.push_back(w->value.to_f32());
    for (size_t i = 0; i < optimizer.weights().size(); ++i)
      if (shared.holds(i) || c.rank() == 0)
        for (const Tensor& t : optimizer.state(i)) seen.state.push_back(t.to_f32());
  });
  if (flip)
    all[static_cast<size_t>(flip->rank)].flipped =
        fault_point_count(flip->point) >= static_cast<long>(flip->passing);
  arm_faults("");
  return all;
}

bool same(const std::vector<Seen>& a, const std::vector<Seen>& b) {
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < a[r].weights.size(); ++i)
      if (!same_bits(a[r].weights[i], b[r].weights[i])) return false;
    for (size_t i = 0; i < a[r].state.size(); ++i)
      if (!same_bits(a[r].state[i], b[r].state[i])) return false;
  }
  return true;
}

TEST(CorruptionGuard, WhereNothingFlipsNobodyIsNamedAndTheBitsAreTheSame) {
  for (const auto kind : {OptimizerSettings::Kind::kAdamW, OptimizerSettings::Kind::kMuon})
    for (const int ranks : {2, 3, 5}) {
      const std::vector<Seen> off = trained(ranks, kind, std::nullopt);
      for (const AuditSettings& audits :
           {AuditSettings{.each_step = true}, AuditSettings{.every = 2}, AuditSettings{}}) {
        const std::vector<Seen> on = trained(ranks, kind, audits);
        EXPECT_TRUE(same(on, off)) << ranks;
        for (const Seen& seen : on) {
          EXPECT_EQ(seen.spoiled + seen.lost, "");
          EXPECT_EQ(seen.said, 0);
          EXPECT_FALSE(seen.left_alone);
        }
      }
    }
}

// `sample`, which nobody has asked for, must not take in some later step what the first ones did not: of what was there
// before an update that is made twice one weight's is kept.
TEST(CorruptionGuard, AnUpdateThatIsMadeTwiceTakesMemoryForOneWeightAtATime) {
  as_ranks(2, [&](TakingTurns& c) {
    std::vector<Weight> weights(16);
    std::vector<Weight*> list;
    const Shape shape = {1 << 16};
    for (Weight& w : weights) {
      w.name = std::to_string(list.size());
      w.value = Tensor::zeros(shape, DType::kF32, cpu_device());
      list.push_back(&w);
    }
    const size_t bytes = weights[0].value.bytes();
    Optimizer optimizer = optimizer_at({c.rank(), c.ranks()}, {}, list);
    SharedStep shared(c, list, kPatienceS);
    CorruptionGuard guard({.each_step = true}, shared, optimizer, list, [](const std::string&) {});
    guard.wrote();
    EXPECT_EQ(guard.begin(0).size(), 2u);
    std::vector<Tensor> gradients;
    for (size_t i = 0; i < list.size(); ++i)
      gradients.push_back(
          Tensor::from_f32(std::vector<float>(size_t{1} << 16, 0.5F), shape, cpu_device()));
    const size_t before = cpu_device().memory_use().live_bytes;
    cpu_device().reset_peak();
    int ones = 0;
    guard.update(
        gradients,
        [&](size_t i) {
          ++ones;
          optimizer.step_one(i, gradients[i], 0.1, 1);
        },
        [&] { optimizer.step(gradients, 0.1, 1); });
    const size_t took = cpu_device().memory_use().peak_bytes - before;
    EXPECT_EQ(ones, 16);
    EXPECT_GE(took, 3 * bytes);  // it, and two of the optimizer
    EXPECT_LT(took, 5 * bytes);
    EXPECT_EQ(optimizer.steps(), 1);
    // What is announced is the other share's gradients, of which an audit of the update takes the place.
    EXPECT_EQ(audit_bytes(optimizer, 2, 2), 16 * bytes);
  });
}

/// Ranks that hold weights of numbers, and a guard of each.
struct Holding {
  std::vector<Weight> weights;
  std::vector<Weight*> list;
  std::vector<Tensor> gradients;  // of each but the last
  std::optional<Optimizer> optimizer;
  std::optional<SharedStep> shared;
  std::optional<CorruptionGuard> guard;

  explicit Holding(comm::Communicator& c) : weights(8) {
    const Shape shape = {100};
    for (Weight& w : weights) {
      w.name = std::to_string(list.size());
      w.value = Tensor::zeros(shape, DType::kF32, cpu_device());
      list.push_back(&w);
      gradients.push_back(
          list.size() == weights.size()
              ? Tensor{}
              : Tensor::from_f32(std::vector<float>(100, 0.5F), shape, cpu_device()));
    }
    optimizer.emplace(optimizer_at({c.rank(), c.ranks()}, {}, list));
    shared.emplace(c, list, kPatienceS);
    guard.emplace(AuditSettings{}, *shared, *optimizer, list, [](const std::string&) {});
    guard->wrote();
  }
  void update() {
    guard->update(
        gradients, [](size_t) { FAIL(); }, [&] { optimizer->step(gradients, 0.1, 1); });
  }
  bool spoiled() const {
    try {
      guard->look_at_own();
    } catch (const Spoiled&) {
      return true;
    }
    return false;
  }
};

void flip_first_bit(const Tensor& t) { *static_cast<std::byte*>(t.data()) ^= std::byte{1}; }

// What is given to a successor after a commit, when the update is there and what others update is not: what this rank
// has updated is to be what it was then, and what nobody has updated what it was before, for good.
TEST(CorruptionGuard, WhatIsUpdatedIsLookedAtBeforeTheOthersWeightsAreThere) {
  as_ranks(2, [&](TakingTurns& c) {
    Holding h(c);
    EXPECT_FALSE(h.spoiled());
    h.update();
    EXPECT_FALSE(h.spoiled());
    for (const bool wrote : {false, true}) {
      if (wrote) h.guard->wrote();
      for (size_t i = 0; i < h.list.size(); ++i)
        for (const Tensor& t : {h.list[i]->value, h.optimizer->state(i)[1]}) {
          flip_first_bit(t);
          EXPECT_TRUE(h.spoiled()) << i;
          flip_first_bit(t);
          EXPECT_FALSE(h.spoiled()) << i;
        }
    }
    // Nothing that is written makes it the truth: no update of others, no successor.
    for (const size_t i : {size_t{0}, h.list.size() - 1}) {
      flip_first_bit(h.optimizer->state(i)[0]);
      h.guard->wrote();
      EXPECT_TRUE(h.spoiled()) << i;
      flip_first_bit(h.optimizer->state(i)[0]);
      EXPECT_FALSE(h.spoiled());
    }
    flip_first_bit(h.list.back()->value);
    h.update();
    h.guard->wrote();
    EXPECT_TRUE(h.spoiled());
  });
}

// Rank 0 says that what it was given for a checkpoint is not what its owner holds: who of them is it?
TEST(CorruptionGuard, AGiverWhoseMemoryChangedIsNamedAndNotRank0WhichFindsIt) {
  for (const int rank : {1, 0}) {
    std::vector<int> named;
    as_ranks(3, [&](TakingTurns& c) {
      Holding h(c);
      // What rank 0 has of one weight comes from there.
      size_t of = 0;
      while (h.shared->owners()[of] != 1) ++of;
      try {
        h.guard->compare(0);
        if (rank == 1 && c.rank() == 1) flip_first_bit(h.optimizer->state(of)[0]);
        h.shared->collect_state(0, *h.optimizer);
        if (rank == 0 && c.rank() == 0) flip_first_bit(h.optimizer->state(of)[0]);
        h.guard->compare_collected(0);
        ADD_FAILURE() << c.rank() << ": nobody is named";
      } catch (const Spoiled&) {
        named.push_back(c.rank());
      } catch (const comm::LinkError& e) {
        EXPECT_TRUE(e.gone()) << e.what();
      }
    });
    EXPECT_EQ(named, std::vector<int>{rank});
  }
}

// A step with a NaN is refused. Which bits it has depends on the processor's instructions: nobody computed wrongly.
TEST(CorruptionGuard, OneNanIsAnother) {
  const auto hash = [](uint32_t bits, double loss, size_t at) {
    std::vector<float> numbers(40000, 1.5F);
    std::memcpy(&numbers[at], &bits, sizeof bits);
    const Tensor sum = Tensor::from_f32(numbers, {std::ssize(numbers)}, cpu_device());
    return CorruptionGuard::hash_of(
        {.losses = {{1.0, loss}}, .expert_counts = {{3}}, .sums = {{sum, Tensor{}}}});
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr uint32_t kNan = 0x7fc00000, kOther = 0xffc12345, kInf = 0x7f800000, kOne = 0x3f800000;
  for (const size_t at : {size_t{0}, size_t{20000}, size_t{39999}}) {
    EXPECT_EQ(hash(kNan, nan, at), hash(kOther, -nan, at));
    EXPECT_NE(hash(kNan, 1, at), hash(kNan, nan, at));
    EXPECT_NE(hash(kNan, 1, at), hash(kInf, 1, at));
    EXPECT_NE(hash(kOne, 1, at), hash(kOne + 1, 1, at));
    EXPECT_NE(hash(kNan, 1, at), hash(kNan, 1, 7));
  }
}

/// Where bits flip: the point, when its rank comes to it, and which of its passings.
struct Place {
  const char* point;
  int finished;
  uint64_t passings;
};

/// What came of flips, all drawn from seeds: at one of those places each.
struct Outcomes {
  int named = 0, suspected = 0, nothing = 0, not_found = 0, wrongly_named = 0;
  std::map<std::string, int> missed;
};

Outcomes flipped(const AuditSettings& audits, std::span<const Place> places, int flips) {
  Outcomes out;
  std::map<int, std::vector<Seen>> undisturbed;
  for (int n = 0; n < flips; ++n) {
    const Random random(17, RandomPurpose::kTest, static_cast<uint64_t>(n));
    const int ranks = 2 + n % 3;
    if (!undisturbed.contains(ranks))
      undisturbed[ranks] = trained(ranks, OptimizerSettings::Kind::kAdamW, audits);
    const Place& place = places[random.below(0, places.size())];
    const Flip flip{.rank = static_cast<int>(random.below(1, static_cast<uint64_t>(ranks))),
                    .step = static_cast<int64_t>(random.below(2, kSteps)),
                    .point = place.point,
                    .finished = place.finished,
                    .passing = 1 + random.below(3, place.passings),
                    .bit = random.below(4, uint64_t{1} << 40)};
    const std::vector<Seen> seen = trained(ranks, OptimizerSettings::Kind::kAdamW, audits, flip);
    const std::string what = std::to_string(n) + ": " + flip.point + " at rank " +
                             std::to_string(flip.rank) + " of " + std::to_string(ranks) +
                             ", step " + std::to_string(flip.step);
    EXPECT_TRUE(seen[static_cast<size_t>(flip.rank)].flipped) << what;
    std::string lost;
    int named = -1;
    for (int r = 0; r < ranks; ++r) {
      const Seen& of = seen[static_cast<size_t>(r)];
      if (!of.lost.empty()) lost = of.lost;
      if (of.spoiled.empty()) continue;
      EXPECT_EQ(named, -1) << what;
      named = r;
    }
    if (named >= 0) {
      EXPECT_EQ(named, flip.rank) << what << ": " << seen[static_cast<size_t>(named)].spoiled;
      ++(named == flip.rank ? out.named : out.wrongly_named);
      for (int r = 0; r < ranks; ++r)
        EXPECT_TRUE(r == named || seen[static_cast<size_t>(r)].left_alone) << what;
    } else if (!lost.empty()) {
      EXPECT_NE(lost.find("rank " + std::to_string(flip.rank)), std::string::npos) << what << lost;
      ++out.suspected;
    } else if (same(seen, undisturbed[ranks])) {
      ++out.nothing;
    } else {
      ++out.not_found;
      ++out.missed[flip.point];
    }
  }
  return out;
}

void tell(const char* of, const Outcomes& o) {
  std::string missed;
  for (const auto& [point, count] : o.missed) missed += " " + point + " " + std::to_string(count);
  std::printf("%s: %d named, %d told as one of two, %d changed nothing, %d not found%s\n",
              of,
              o.named,
              o.suspected,
              o.nothing,
              o.not_found,
              missed.c_str());
}

// After the numbers, after the gradients, after the update's weights: when a rank's turn comes again in a step.
constexpr int kBeforeAll = 0, kNumbersAreThere = 1, kGradientsAreThere = 2, kSumsAreThere = 3;

TEST(CorruptionGuard, WhereAllIsAuditedEveryFlipThatChangesAnythingIsFoundAndTheRankNamed) {
  const Place places[] = {{"flip.weights", kBeforeAll, 1},
                          {"flip.state", kBeforeAll, 1},
                          {"flip.nodes", kBeforeAll, 1},
                          {"flip.kept", kBeforeAll, 1},
                          {"flip.sending", kNumbersAreThere, 1},
                          {"flip.gradient", kBeforeAll, 30},
                          {"flip.sums", kGradientsAreThere, 1},
                          {"flip.audited", 3, 8},
                          {"flip.audited.state", 3, 8},
                          {"flip.updated", 3, 1},
                          {"flip.updated.state", 3, 1},
                          {"flip.written", 4, 1},
                          {"flip.written.state", 4, 1}};
  const Outcomes o = flipped({.each_step = true}, places, 240);
  tell("full", o);
  EXPECT_EQ(o.not_found, 0);
  EXPECT_EQ(o.wrongly_named, 0);
  EXPECT_GT(o.named, 200);
}

TEST(CorruptionGuard, WithoutAuditsWhatIsHeldIsFound) {
  const Place held[] = {{"flip.weights", kBeforeAll, 1},
                        {"flip.state", kBeforeAll, 1},
                        {"flip.kept", kBeforeAll, 1},
                        {"flip.sending", kNumbersAreThere, 1},
                        {"flip.sums.held", kSumsAreThere, 1},
                        {"flip.written", 5, 1},
                        {"flip.written.state", 5, 1}};
  const Outcomes o = flipped({}, held, 120);
  tell("hashes alone, what is held", o);
  EXPECT_EQ(o.not_found, 0);
  EXPECT_EQ(o.wrongly_named, 0);
  EXPECT_GT(o.named, 100);
  // An update that is wrong leaves owner and replica with different things, and nothing that says whose is right.
  const Place updates[] = {{"flip.updated", 4, 1}, {"flip.updated.state", 4, 1}};
  const Outcomes either = flipped({}, updates, 30);
  tell("hashes alone, updates", either);
  EXPECT_EQ(either.not_found, 0);
  EXPECT_EQ(either.wrongly_named, 0);
  EXPECT_GT(either.suspected, 20);
  // What is computed is not: it takes an audit.
  const Place computed[] = {{"flip.nodes", kBeforeAll, 1}, {"flip.gradient", kBeforeAll, 30}};
  const Outcomes unseen = flipped({}, computed, 30);
  tell("hashes alone, what is computed", unseen);
  EXPECT_EQ(unseen.named + unseen.suspected, 0);
  EXPECT_GT(unseen.not_found, 5);
}

}  // namespace
}  // namespace ferry
