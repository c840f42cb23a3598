// Runs in simulated time, of some ranks on a machine that others make slow, in which one thing comes to a standstill
// that a seed draws: who is to blame must be said, within seconds, and nothing before.
#include "train/hang_watch.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "comm/communicator.h"
#include "train/supervisor.h"

namespace ferry::hang {
namespace {

using comm::Purpose;
using flight::Activity;
using flight::Pass;
using supervisor::Work;

constexpr double kTickS = 0.05;
constexpr double kNever = std::numeric_limits<double>::infinity();

/// Draws one after the other.
class Dice {
 public:
  Dice(uint64_t seed, uint64_t purpose) : random_(seed, RandomPurpose::kTest, purpose) {}
  double uniform(double low, double high) { return low + (high - low) * random_.uniform(next_++); }
  int below(int n) { return static_cast<int>(random_.below(next_++, static_cast<uint64_t>(n))); }

 private:
  Random random_;
  uint64_t next_ = 0;
};

/// One thing that a rank does.
struct Item {
  Activity activity = Activity::kHost;
  std::string name = {};  // of an op, or a call
  Work work = Work::kTraining;
  Pass pass = Pass::kNone;
  int layer = -1;
  int64_t micro_batch = -1;  // done when this is
  double seconds = 0;        // with a processor of its own
  Purpose exchange = {};     // with all others
};

enum class Fault { kSleep, kSpin, kStop, kDebugger, kHalfMessage, kLink, kNotSent, kNone };

struct World {
  int ranks = 4;
  double load_max = 1;     // the machine has so many times the work that it can do
  double slow_factor = 1;  // of rank slow_rank
  int slow_rank = -1;
  // The fault: of this rank, in its first item after `at_s` of which this is so.
  Fault fault = Fault::kNone;
  int rank = 0;
  double at_s = kNever;
  std::function<bool(const Item&)> in = {};
};

/// Steps of a run as ranks make them.
std::vector<Item> step_of(int64_t step, int rank, Dice& dice) {
  constexpr int kLayers = 3;
  constexpr std::array<std::pair<const char*, double>, 5> kOps = {
      {{"rms_norm", 0.01}, {"linear", 0.08}, {"attention", 0.2}, {"moe", 0.3}, {"add", 0.005}}};
  const Work work = step == 0 ? Work::kFirstStep : Work::kTraining;
  std::vector<Item> items;
  const auto op = [&](Work w, Pass pass, int layer, const char* name, double seconds) {
    items.push_back({.activity = Activity::kOp,
                     .name = name,
                     .work = w,
                     .pass = pass,
                     .layer = layer,
                     .seconds = seconds * dice.uniform(0.9, 1.1)});
    items.push_back({.work = w, .pass = pass, .layer = layer, .seconds = 0.001});
  };
  const auto exchange = [&](Purpose p) {
    items.push_back({.activity = Activity::kMessages, .work = work, .exchange = p});
  };
  exchange(Purpose::kStop);
  items.push_back({.activity = Activity::kData, .work = work, .seconds = dice.uniform(0, 0.1)});
  for (int64_t m = 1; m <= 2; ++m) {
    for (int l = 0; l < kLayers; ++l)
      for (const auto& [name, seconds] : kOps) op(work, Pass::kForward, l, name, seconds);
    for (int l = kLayers - 1; l >= 0; --l)
      for (const auto& [name, seconds] : kOps) op(work, Pass::kBackward, l, name, 2 * seconds);
    items.back().micro_batch = m;
  }
  for (const Purpose p : {Purpose::kNumbers, Purpose::kGradients, Purpose::kSquares}) exchange(p);
  op(work, Pass::kUpdate, -1, "adamw", 0.1);
  exchange(Purpose::kWeights);
  if (step % 3 == 2) {  // rank 0 evaluates, the others wait
    for (int i = 0; rank == 0 && i < 30; ++i)
      op(Work::kEvaluating, Pass::kNone, i % kLayers, i % 2 == 0 ? "attention" : "moe", 0.2);
    exchange(Purpose::kHeldOut);
  }
  if (step % 4 == 3) {
    exchange(Purpose::kState);
    for (int i = 0; rank == 0 && i < 12; ++i)
      items.push_back({.activity = Activity::kFile,
                       .name = i % 4 == 3 ? "sync" : "write",
                       .work = Work::kWriting,
                       .seconds = i % 4 == 3 ? dice.uniform(0.2, 2.2) : 0.05});
  }
  return items;
}

class Simulation {
 public:
  Simulation(const World& world, uint64_t seed) : world_(world), dice_(seed, 1), load_(seed, 2) {
    for (int r = 0; r < world.ranks; ++r) {
      Rank& rank = ranks_.emplace_back();
      rank.page.links.resize(static_cast<size_t>(world.ranks));
      enter(r);
    }
    verdicts_.emplace(Limits{}, world.ranks);
  }

  struct Found {
    std::optional<Verdict> first;  // of a hang
    std::optional<Verdict> slow;
    double after_s = 0;      // since the fault
    std::optional<Item> at;  // where it struck
    int64_t steps = 0;
  };

  /// Until a hang is told, or so long.
  Found run(double seconds) {
    Found found;
    double look_s = 0;
    while (now_s_ < seconds && !found.first && !found.slow) {
      now_s_ += kTickS;
      if (load_now_ < 0 || load_.uniform(0, 1) < kTickS / 20)
        load_now_ = load_.uniform(1, world_.load_max);
      for (int r = 0; r < world_.ranks; ++r) advance(r);
      if (now_s_ < look_s) continue;
      look_s = now_s_ + verdicts_->every_s();
      look();
      const std::optional<Verdict>& v = verdicts_->verdict();
      if (v && v->kind == Kind::kSlow) found.slow = v;
      if (v && v->kind != Kind::kSlow) found.first = v;
    }
    // What is not sent is missed by those who wait for it, when all have come to wait.
    found.after_s = now_s_ - (world_.fault == Fault::kNotSent ? moved_s_ : struck_s_);
    found.at = struck_;
    found.steps = ranks_[0].step;
    return found;
  }

  int struck_peer() const { return (world_.rank + 1) % world_.ranks; }

 private:
  struct Rank {
    flight::Snapshot page;
    int64_t step = 0, exchanges = 0;
    std::vector<Item> items;
    size_t next = 0;
    double left_s = 0, processor_s = 0, micro_began_s = 0;
    bool stands = false;
  };

  bool here(int r, Fault fault) const {
    return struck_ && world_.rank == r && world_.fault == fault;
  }

  void enter(int r) {
    Rank& rank = ranks_[static_cast<size_t>(r)];
    if (rank.next == rank.items.size()) {
      if (!rank.items.empty()) rank.page.step = ++rank.step;
      rank.items = step_of(rank.step, r, dice_);
      rank.next = 0;
    }
    const Item& item = rank.items[rank.next];
    flight::Snapshot& p = rank.page;
    if (p.work != static_cast<int32_t>(item.work)) p.done = 0;
    p.work = static_cast<int32_t>(item.work);
    p.activity = item.activity;
    p.pass = item.pass;
    p.layer = item.layer;
    if (item.activity == Activity::kOp) {
      p.op_known = known_.contains({r, item.name});
      p.op = item.name;
      known_.insert({r, item.name});
    }
    if (item.activity == Activity::kFile) {
      p.call = item.name;
      p.path = "/run/step-00000004/model.safetensors";
    }
    const bool slow = r == world_.slow_rank && item.activity != Activity::kFile;
    rank.left_s = item.seconds * (slow ? world_.slow_factor : 1);
    ++p.moves;
    moved_s_ = now_s_;
    if (!struck_ && r == world_.rank && now_s_ >= world_.at_s && world_.in && world_.in(item)) {
      struck_ = item;
      struck_s_ = now_s_;
      rank.stands = world_.fault != Fault::kLink && world_.fault != Fault::kNotSent;
    }
    if (item.activity == Activity::kData) rank.micro_began_s = now_s_;
    if (item.activity != Activity::kMessages) return;
    p.exchanges = static_cast<uint64_t>(++rank.exchanges);
    for (int o = 0; o < world_.ranks; ++o) {
      if (o == r) continue;
      flight::Snapshot::Link& l = p.links[static_cast<size_t>(o)];
      l.in = {static_cast<uint32_t>(item.exchange), 0, rank.step, 1000, 0};
      const bool lost_one = o == struck_peer();
      if (here(r, Fault::kHalfMessage) && lost_one) {
        l.out = {static_cast<uint32_t>(item.exchange), 0, rank.step, 1000, 500};
        l.sent += 500;
        p.peer = o;
        p.sending = true;
      } else if (!(here(r, Fault::kNotSent) && lost_one)) {
        l.sent += 1000;
      }
    }
  }

  void advance(int r) {
    Rank& rank = ranks_[static_cast<size_t>(r)];
    if (rank.stands) {
      if (world_.fault == Fault::kSpin) rank.processor_s += kTickS / load_now_;
      return;
    }
    double left = kTickS;
    while (left > 0 && !rank.stands) {
      const Item item = rank.items[rank.next];
      if (item.activity == Activity::kMessages) {
        if (exchange(r)) continue;
        ++rank.page.looks;
        return;
      }
      const bool computes = item.activity == Activity::kOp || item.activity == Activity::kHost;
      const double speed = computes ? 1 / load_now_ : 1;
      const double needs = rank.left_s / speed, takes = std::min(left, needs);
      rank.left_s -= takes * speed;
      if (computes) rank.processor_s += takes * speed;
      left -= takes;
      if (takes < needs) return;
      if (item.micro_batch > 0) {
        rank.page.done = item.micro_batch;
        if (item.work == Work::kTraining) {
          ++rank.page.micro_batches;
          rank.page.micro_batch_us += static_cast<int64_t>((now_s_ - rank.micro_began_s) * 1e6);
        }
        rank.micro_began_s = now_s_;
      }
      leave(r);
    }
  }

  /// Takes what has come. Whether all of it has.
  bool exchange(int r) {
    Rank& rank = ranks_[static_cast<size_t>(r)];
    bool all = true;
    for (int o = 0; o < world_.ranks; ++o) {
      if (o == r) continue;
      flight::Snapshot::Link& l = rank.page.links[static_cast<size_t>(o)];
      const auto expected = static_cast<uint64_t>(rank.exchanges) * 1000;
      uint64_t sent = ranks_[static_cast<size_t>(o)].page.links[static_cast<size_t>(r)].sent;
      if (here(o, Fault::kLink) && r == struck_peer()) sent = l.received;
      sent = std::min(sent, expected);
      if (sent > l.received) {
        l.received = sent;
        l.in.done = sent - (expected - 1000);
        ++rank.page.moves;
        moved_s_ = now_s_;
      }
      if (l.received < expected)
        all = false;
      else
        l.in = {};
    }
    if (all) leave(r);
    return all;
  }

  void leave(int r) {
    Rank& rank = ranks_[static_cast<size_t>(r)];
    ++rank.next;
    enter(r);
  }

  void look() {
    std::vector<HangWatch::Look> looks;
    for (int r = 0; r < world_.ranks; ++r) {
      const Rank& rank = ranks_[static_cast<size_t>(r)];
      HangWatch::Look look{.page = rank.page};
      if (verdicts_->wants_process(r)) {
        const Activity a = rank.page.activity;
        const bool computes = (a == Activity::kOp || a == Activity::kHost) &&
                              (!rank.stands || world_.fault == Fault::kSpin);
        const bool at_disk = a == Activity::kFile || a == Activity::kData;
        look.process = ProcessLook{.state = computes  ? 'R'
                                            : at_disk ? 'D'
                                                      : 'S',
                                   .runnable = computes || at_disk,
                                   .processor_s = rank.processor_s,
                                   .first_s = rank.processor_s};
        if (rank.stands && world_.fault == Fault::kDebugger) look.process->state = 't';
      }
      look.stopped = rank.stands && world_.fault == Fault::kStop;
      looks.push_back(look);
    }
    verdicts_->look(looks, now_s_);
  }

  const World world_;
  Dice dice_, load_;
  std::vector<Rank> ranks_;
  std::set<std::pair<int, std::string>> known_;
  std::optional<HangWatch> verdicts_;
  double now_s_ = 0, load_now_ = -1, struck_s_ = 0, moved_s_ = 0;
  std::optional<Item> struck_;
};

/// What must be said of the fault.
Kind kind_of(Fault fault, Activity activity) {
  switch (fault) {
    case Fault::kStop:
    case Fault::kDebugger: return Kind::kStopped;
    case Fault::kHalfMessage: return Kind::kMessage;
    case Fault::kLink: return Kind::kLink;
    case Fault::kNotSent: return Kind::kEachOther;
    default: break;
  }
  switch (activity) {
    case Activity::kOp: return Kind::kOp;
    case Activity::kFile: return Kind::kFile;
    case Activity::kData: return Kind::kData;
    case Activity::kMessages: return Kind::kMessage;
    default: return Kind::kHost;
  }
}

/// A world with a fault that the seed draws, early or late, on a quiet or a busy machine.
World world_of(uint64_t seed) {
  Dice dice(seed, 3);
  constexpr std::array kFaults = {Fault::kSleep,
                                  Fault::kSleep,
                                  Fault::kSpin,
                                  Fault::kStop,
                                  Fault::kDebugger,
                                  Fault::kHalfMessage,
                                  Fault::kLink,
                                  Fault::kNotSent};
  World w{.ranks = 1 + dice.below(9), .load_max = dice.uniform(1, 6)};
  w.fault = kFaults[static_cast<size_t>(dice.below(kFaults.size()))];
  const bool of_messages =
      w.fault == Fault::kHalfMessage || w.fault == Fault::kLink || w.fault == Fault::kNotSent;
  if (of_messages) w.ranks = std::max(2, w.ranks);
  w.rank = dice.below(w.ranks);
  w.at_s = dice.uniform(0, 150);
  constexpr std::array<const char*, 6> kOps = {
      "rms_norm", "linear", "attention", "moe", "add", "adamw"};
  const std::string op = kOps[static_cast<size_t>(dice.below(kOps.size()))];
  const int layer = dice.below(3), what = dice.below(6);
  const bool spins = w.fault == Fault::kSpin;
  w.in = [=](const Item& item) {
    if (of_messages) return item.activity == Activity::kMessages;
    // What spins in its first step may yet be a large model: that is found later.
    if (spins)
      return item.activity == Activity::kOp && item.name == op && item.work == Work::kTraining;
    if (what == 0) return item.activity == Activity::kData;
    if (what == 1 && w.rank == 0) return item.activity == Activity::kFile;
    if (what == 2) return item.activity == Activity::kHost && item.work != Work::kEvaluating;
    return item.activity == Activity::kOp && item.name == op &&
           (op == "adamw" || item.layer == layer) && item.work != Work::kEvaluating;
  };
  return w;
}

TEST(HangSimulation, WhoHangsAndInWhatIsSaidOfFiveHundredSeededHangsWithinTenSeconds) {
  int right = 0, faults = 0;
  std::vector<double> seconds;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    const World w = world_of(seed);
    Simulation simulation(w, seed);
    const Simulation::Found found = simulation.run(600);
    ASSERT_TRUE(found.at) << "seed " << seed << ": nothing hung"
                          << (found.first ? ", and yet: " + found.first->text : "");
    const std::string context =
        fmt::format("seed {}: fault {} of {} ranks, load {:.1f}, at {:.1f} s in {}; said: {}",
                    seed,
                    static_cast<int>(w.fault),
                    w.ranks,
                    w.load_max,
                    w.at_s,
                    found.at->name,
                    found.first ? found.first->text : "nothing");
    ASSERT_TRUE(found.first) << context;
    ++faults;
    const Verdict& v = *found.first;
    const Kind kind = kind_of(w.fault, found.at->activity);
    const std::string in = kind == Kind::kOp || kind == Kind::kFile ? found.at->name : v.in;
    // Of a link both ends are named, of ranks that wait for each other the one that did not send.
    const bool is_right = v.kind == kind && v.rank == w.rank && v.in == in &&
                          (v.kind != Kind::kLink || v.peer == simulation.struck_peer());
    EXPECT_TRUE(is_right) << context;
    right += is_right;
    seconds.push_back(found.after_s);
    EXPECT_LE(found.after_s, 10) << context;  // since then all could be seen to wait
  }
  std::sort(seconds.begin(), seconds.end());
  RecordProperty("right", right);
  fmt::print("{} of {} right; verdict after {:.1f} s in the middle, {:.1f} s at most\n",
             right,
             faults,
             seconds[seconds.size() / 2],
             seconds.back());
}

TEST(HangSimulation, NoRunThatGoesOnIsSaidToHangHoweverBusyTheMachine) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    Dice dice(seed, 4);
    const World w{.ranks = 1 + dice.below(9), .load_max = dice.uniform(1, 40)};
    const Simulation::Found found = Simulation(w, seed).run(1200);
    EXPECT_FALSE(found.first) << "seed " << seed << ", load " << w.load_max << ": "
                              << found.first->text;
    EXPECT_FALSE(found.slow) << "seed " << seed << ": " << found.slow->text;
    EXPECT_GT(found.steps, 5) << "seed " << seed;
  }
}

TEST(HangSimulation, WhoIsSlowIsNamedAndDoesNotHang) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Dice dice(seed, 5);
    World w{.ranks = 2 + dice.below(7), .load_max = 1, .slow_factor = 3};
    w.slow_rank = dice.below(w.ranks);
    const Simulation::Found found = Simulation(w, seed).run(900);
    EXPECT_FALSE(found.first) << "seed " << seed << ": " << found.first->text;
    ASSERT_TRUE(found.slow) << "seed " << seed;
    EXPECT_EQ(found.slow->rank, w.slow_rank) << "seed " << seed << ": " << found.slow->text;
  }
}

// ---- One rule at a time

HangWatch::Look at(uint64_t moves, Activity activity, char state, double processor_s = 0) {
  HangWatch::Look look;
  look.page.moves = moves;
  look.page.activity = activity;
  look.page.work = static_cast<int32_t>(Work::kTraining);
  look.page.op = "matmul";
  look.page.op_known = true;
  look.process = ProcessLook{.state = state,
                             .runnable = state == 'R' || state == 'D',
                             .processor_s = processor_s,
                             .first_s = processor_s};
  return look;
}

/// Looks at one rank that stands for so long, whose thread uses this share of a processor.
std::optional<Verdict> after(
    HangWatch& watch, double& now_s, double seconds, HangWatch::Look look, double share = 0) {
  for (const double until = now_s + seconds; now_s < until; now_s += watch.every_s()) {
    watch.look({&look, 1}, now_s);
    look.process->processor_s += share * watch.every_s();
    look.process->first_s += share * watch.every_s();
  }
  return watch.verdict();
}

/// Looks for so long at ranks that stand, but that who waits looks for messages.
std::optional<Verdict> after(HangWatch& watch,
                             double& now_s,
                             double seconds,
                             std::vector<HangWatch::Look>& looks) {
  for (const double until = now_s + seconds; now_s < until; now_s += watch.every_s()) {
    for (HangWatch::Look& l : looks)
      l.page.looks += l.page.activity == Activity::kMessages && !l.stopped;
    watch.look(looks, now_s);
  }
  return watch.verdict();
}

TEST(HangWatch, AnOpThatTookLongBeforeMayTakeFourTimesAsLong) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  EXPECT_FALSE(after(watch, now_s, 2.8, at(1, Activity::kOp, 'R'), 1));
  after(watch, now_s, 0.1, at(2, Activity::kHost, 'R'));
  EXPECT_FALSE(after(watch, now_s, 10, at(3, Activity::kOp, 'R'), 1));
  const auto verdict = after(watch, now_s, 3, at(3, Activity::kOp, 'R', 10), 1);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->kind, Kind::kOp);
  EXPECT_FALSE(verdict->certain) << "it may yet come to an end";
  EXPECT_NE(verdict->text.find("matmul"), std::string::npos);
}

TEST(HangWatch, WhoIsGivenNoProcessorDoesNotHang) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  EXPECT_FALSE(after(watch, now_s, 60, at(1, Activity::kOp, 'R'), 0.01));
  EXPECT_TRUE(after(watch, now_s, 300, at(1, Activity::kOp, 'R'), 0.01));
}

TEST(HangWatch, WhoSleepsInAnOpHangsAndCannotGoOn) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  EXPECT_FALSE(after(watch, now_s, 2.9, at(1, Activity::kOp, 'S')));
  const auto verdict = after(watch, now_s, 1, at(1, Activity::kOp, 'S'));
  ASSERT_TRUE(verdict);
  EXPECT_TRUE(verdict->certain);
  EXPECT_EQ(watch.news().size(), 1u) << "told once";
  after(watch, now_s, 1, at(2, Activity::kOp, 'R'));
  EXPECT_EQ(watch.news(), (std::vector<std::string>{"rank 0 goes on"}));
}

TEST(HangWatch, WhoLooksForgivesWhatPassedWhileItDidNot) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  after(watch, now_s, 2, at(1, Activity::kOp, 'S'));
  now_s += 1000;  // a laptop that slept
  EXPECT_FALSE(after(watch, now_s, 0.5, at(1, Activity::kOp, 'S')));
  EXPECT_TRUE(after(watch, now_s, 3, at(1, Activity::kOp, 'S')));
}

TEST(HangWatch, WhoIsLookedAtSeldomSleepsAllTheSameAndOnlyWhoMovesGoesOn) {
  HangWatch watch(Limits{}, 1);
  const HangWatch::Look look = at(1, Activity::kOp, 'S');
  double now_s = 0;
  for (; now_s < 60; now_s += 1.2) watch.look({&look, 1}, now_s);  // a busy machine
  EXPECT_TRUE(watch.verdict());
  EXPECT_EQ(watch.news().size(), 1u);
  const HangWatch::Look woken = at(1, Activity::kOp, 'R', 1);
  watch.look({&woken, 1}, now_s);
  EXPECT_FALSE(watch.verdict()) << "it may be at work again";
  EXPECT_TRUE(watch.news().empty()) << "and may not";
  const HangWatch::Look asleep = at(1, Activity::kOp, 'S', 1);
  after(watch, now_s, 4, asleep);
  EXPECT_TRUE(watch.verdict());
  EXPECT_TRUE(watch.news().empty()) << "that was said";
  after(watch, now_s, 0.5, at(2, Activity::kOp, 'R'));
  EXPECT_EQ(watch.news(), (std::vector<std::string>{"rank 0 goes on"}));
}

TEST(HangWatch, WhoIsStoppedAgainAndAgainAndMovesIsNotStopped) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  uint64_t moves = 1;
  for (int i = 0; i < 100; ++i) {  // cpulimit
    HangWatch::Look look = at(++moves, Activity::kOp, 'T');
    look.stopped = true;
    EXPECT_FALSE(after(watch, now_s, 0.5, look));
  }
  HangWatch::Look look = at(moves, Activity::kOp, 'T');
  look.stopped = true;
  ASSERT_TRUE(after(watch, now_s, 2, look));
  EXPECT_EQ(watch.news().size(), 1u);
  look.page.op = "add";  // it was on its way when it was stopped
  after(watch, now_s, 2, look);
  EXPECT_TRUE(watch.news().empty());
}

TEST(HangWatch, WhatOnceStoodStillIsNoExcuseForEver) {
  const auto seconds_until_told = [](double quiet_s) {
    HangWatch watch(Limits{}, 1);
    double now_s = 0;
    uint64_t moves = 1;
    after(watch, now_s, 0.5, at(moves, Activity::kHost, 'R'));
    HangWatch::Look sync = at(++moves, Activity::kFile, 'D');
    sync.page.call = "sync";
    after(watch, now_s, 120, sync);
    for (const double until = now_s + quiet_s; now_s < until;) {
      after(watch, now_s, 0.75, at(++moves, Activity::kOp, 'R'));
      sync.page.moves = ++moves;
      after(watch, now_s, 0.25, sync);
    }
    sync.page.moves = ++moves;
    const double began_s = now_s;
    while (!after(watch, now_s, 0.25, sync)) {
    }
    return now_s - began_s;
  };
  EXPECT_NEAR(seconds_until_told(10), 30, 1) << "four times what it might have taken";
  EXPECT_NEAR(seconds_until_told(1900), 7.5, 1) << "what was long ago";
}

TEST(HangWatch, WhoMayComeBackDoesNotHideWhoWillNot) {
  HangWatch watch(Limits{}, 2);
  HangWatch::Look sync = at(1, Activity::kFile, 'D');
  sync.page.call = "sync";
  std::vector<HangWatch::Look> looks = {sync, at(1, Activity::kHost, 'R')};
  double now_s = 0;
  const auto look_for = [&](double seconds) { return after(watch, now_s, seconds, looks); };
  look_for(6);
  looks[1] = at(2, Activity::kOp, 'S');
  const std::optional<Verdict> v = look_for(6);
  ASSERT_TRUE(v);
  EXPECT_EQ(v->rank, 1) << v->text;
  EXPECT_EQ(v->in, "matmul");
  EXPECT_TRUE(v->certain);
  EXPECT_NE(v->text.find("rank 0 as well"), std::string::npos) << v->text;
  looks[0].page.work = static_cast<int32_t>(Work::kWriting);
  EXPECT_FALSE(look_for(1)->certain) << "rank 0 is at a save, which must not be lost";
}

// One that only waits was stopped meanwhile: letting it go on would change nothing.
TEST(HangWatch, WhoIsStoppedWhileHeWaitsIsNotToBlameForWhomHeWaitsFor) {
  HangWatch watch(Limits{}, 3);
  std::vector<HangWatch::Look> looks = {
      at(1, Activity::kMessages, 'S'), at(1, Activity::kOp, 'S'), at(1, Activity::kMessages, 'S')};
  double now_s = 0;
  const auto look_for = [&](double seconds) { return after(watch, now_s, seconds, looks); };
  ASSERT_TRUE(look_for(4));
  EXPECT_EQ(watch.verdict()->rank, 1);
  looks[0].stopped = true;
  std::optional<Verdict> v = look_for(5);
  ASSERT_TRUE(v);
  EXPECT_EQ(v->rank, 1) << v->text;
  EXPECT_EQ(v->kind, Kind::kOp);
  // Once that one gets on the one that was stopped holds all up; of two, the one that was stopped first.
  looks[1] = at(2, Activity::kMessages, 'S');
  v = look_for(2);
  ASSERT_TRUE(v);
  EXPECT_EQ(v->rank, 0) << v->text;
  EXPECT_EQ(v->kind, Kind::kStopped);
  looks[2].stopped = true;
  v = look_for(2);
  EXPECT_EQ(v->rank, 0) << v->text;
}

TEST(HangWatch, OfWhoIsReplacedNothingIsKept) {
  HangWatch watch(Limits{}, 2);
  std::vector<HangWatch::Look> looks = {at(1, Activity::kMessages, 'S'), at(7, Activity::kOp, 'S')};
  double now_s = 0;
  const auto look_for = [&](double seconds) { return after(watch, now_s, seconds, looks); };
  ASSERT_TRUE(look_for(4));
  EXPECT_EQ(watch.news().size(), 1u);
  watch.replaced(1);
  EXPECT_FALSE(watch.verdict());
  EXPECT_FALSE(look_for(1)) << "the successor has only begun to stand";
  EXPECT_TRUE(watch.news().empty()) << "no word that the lost one goes on";
  ASSERT_TRUE(look_for(4));
  EXPECT_EQ(watch.verdict()->rank, 1);
}

TEST(HangWatch, OnlyAStepsOwnWorkHangsForSure) {
  for (const Work work : {Work::kFirstStep,
                          Work::kTraining,
                          Work::kEvaluating,
                          Work::kProbing,
                          Work::kWriting,
                          Work::kRemoving,
                          Work::kNoRoom,
                          Work::kFirstEvaluation,
                          Work::kReference,
                          Work::kTakingPlace}) {
    HangWatch watch(Limits{}, 1);
    double now_s = 0;
    HangWatch::Look look = at(1, Activity::kHost, 'S');
    look.page.work = static_cast<int32_t>(work);
    look.page.layer = 3;
    const auto v = after(watch, now_s, 5, look);
    ASSERT_TRUE(v) << static_cast<int>(work);
    EXPECT_EQ(v->certain, work == Work::kTraining) << v->text;
    const bool of_ops = work != Work::kWriting && work != Work::kRemoving && work != Work::kNoRoom;
    for (const char* words : {"matmul", "layer", "between two ops"})
      EXPECT_EQ(v->text.find(words) != std::string::npos, of_ops) << v->text;
  }
}

TEST(HangWatch, WhoReadsItsBatchAndIsGivenNoProcessorDoesNotHang) {
  for (const Activity activity : {Activity::kData, Activity::kFile, Activity::kChip}) {
    HangWatch watch(Limits{}, 1);
    double now_s = 0;
    EXPECT_FALSE(after(watch, now_s, 60, at(1, activity, 'R'), 0.03));
    HangWatch another(Limits{}, 1);
    EXPECT_TRUE(after(another, now_s, 30, at(1, activity, 'R'), 1)) << "for ever at work";
  }
}

TEST(HangWatch, ASyncHasTheTimeThatItsBytesTakeOnASlowDisk) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  HangWatch::Look look = at(1, Activity::kFile, 'D');
  look.page.call = "sync";
  look.page.path = "/run/model.safetensors";
  look.page.file_bytes = 2'000'000'000;
  EXPECT_FALSE(after(watch, now_s, 99, look));
  const auto verdict = after(watch, now_s, 3, look);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->kind, Kind::kFile);
  EXPECT_FALSE(verdict->certain) << "disks come back";
  EXPECT_NE(verdict->text.find("sync of /run/model.safetensors"), std::string::npos);
}

TEST(HangWatch, OfAChipTheOpenLaunchesAreNamed) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  HangWatch::Look look = at(1, Activity::kChip, 'S');
  look.page.launched = 48;
  look.page.ended = 32;
  look.page.chip_ops = "grouped_linear, add";
  look.page.work = static_cast<int32_t>(Work::kFirstStep);
  EXPECT_FALSE(after(watch, now_s, 30, look)) << "its first step may take long";
  look.page.work = static_cast<int32_t>(Work::kTraining);
  look.page.moves = 2;
  EXPECT_FALSE(after(watch, now_s, 2.5, look));
  const auto verdict = after(watch, now_s, 125, look);
  ASSERT_TRUE(verdict);
  EXPECT_EQ(verdict->kind, Kind::kChip);
  EXPECT_EQ(verdict->in, "grouped_linear, add");
  EXPECT_NE(verdict->text.find("launches 33 to 48"), std::string::npos) << verdict->text;
}

/// A driver that compiles has an op's caller sleep the first time; later, or with nothing under way, nobody wakes it.
TEST(HangWatch, AnOpMaySleepWhileItsFirstLaunchIsUnderWay) {
  const auto told_of = [](bool known, uint64_t launched, double seconds) {
    HangWatch watch(Limits{}, 1);
    double now_s = 0;
    HangWatch::Look look = at(1, Activity::kOp, 'S');
    look.page.op_known = known;
    look.page.launched = launched;
    return after(watch, now_s, seconds, look);
  };
  EXPECT_FALSE(told_of(false, 3, 55));
  const auto at_last = told_of(false, 3, 65);
  ASSERT_TRUE(at_last);
  EXPECT_EQ(at_last->kind, Kind::kOp);
  EXPECT_FALSE(at_last->certain) << "it may yet come to an end";
  for (const auto& [known, launched] : {std::pair{true, 3}, {false, 0}, {true, 0}}) {
    const auto v = told_of(known, static_cast<uint64_t>(launched), 5);
    ASSERT_TRUE(v) << known << launched;
    EXPECT_TRUE(v->certain) << v->text;
  }
}

/// What was never done may take long; what was done before, or is a step's, is known.
TEST(HangWatch, WhatARankDoesForTheFirstTimeMayTakeLong) {
  const auto told_of = [](Work work, std::optional<Work> before, double seconds) {
    HangWatch watch(Limits{}, 1);
    double now_s = 0;
    const auto busy_at = [&](uint64_t moves, Work w) {
      HangWatch::Look look = at(moves, Activity::kHost, 'R');
      look.page.work = static_cast<int32_t>(w);
      return look;
    };
    if (before) {
      after(watch, now_s, 0.3, busy_at(1, *before));
      after(watch, now_s, 0.3, busy_at(2, Work::kWriting));
    }
    return after(watch, now_s, seconds, busy_at(3, work), 1).has_value();
  };
  EXPECT_TRUE(told_of(Work::kTraining, std::nullopt, 5));
  for (const Work work : {Work::kFirstStep,
                          Work::kEvaluating,
                          Work::kFirstEvaluation,
                          Work::kReference,
                          Work::kTakingPlace}) {
    const auto number = static_cast<int>(work);
    EXPECT_FALSE(told_of(work, std::nullopt, 40)) << number;
    EXPECT_TRUE(told_of(work, std::nullopt, 70)) << number;
    EXPECT_FALSE(told_of(work, Work::kTraining, 40)) << number;
    EXPECT_TRUE(told_of(work, work, 5)) << number;
  }
  EXPECT_TRUE(told_of(Work::kEvaluating, Work::kFirstEvaluation, 5)) << "the same work";
  EXPECT_FALSE(told_of(Work::kFirstEvaluation, Work::kEvaluating, 40));
}

TEST(HangWatch, NobodyWhoLeavesOrHasEndedHangs) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  EXPECT_FALSE(after(watch, now_s, 100, at(1, Activity::kLeaving, 'S')));
  HangWatch::Look look = at(1, Activity::kOp, 'S');
  look.ended = true;
  EXPECT_FALSE(after(watch, now_s, 100, look));
}

// Rank 0 has saved, and is gone; the other one was to follow it.
TEST(HangWatch, WhoIsStoppedAtTheEndIsToldThoughAnotherIsDone) {
  HangWatch watch(Limits{}, 2);
  std::vector<HangWatch::Look> looks = {at(1, Activity::kHost, 'S'), at(1, Activity::kOp, 'T')};
  looks[0].ended = looks[0].done = true;
  looks[1].stopped = true;
  for (double now_s = 0; now_s < 2; now_s += watch.every_s()) watch.look(looks, now_s);
  ASSERT_TRUE(watch.verdict());
  EXPECT_EQ(watch.verdict()->kind, Kind::kStopped);
  EXPECT_EQ(watch.verdict()->rank, 1);
  // Who was lost is told as that, and what follows from it.
  HangWatch lost(Limits{}, 2);
  looks[0].done = false;
  for (double now_s = 0; now_s < 2; now_s += lost.every_s()) lost.look(looks, now_s);
  EXPECT_FALSE(lost.verdict());
}

TEST(HangWatch, ThatAStartSleepsIsNoHangForAWhile) {
  HangWatch watch(Limits{}, 1);
  double now_s = 0;
  HangWatch::Look look = at(1, Activity::kHost, 'S');
  look.page.work = static_cast<int32_t>(Work::kLoading);  // a driver that wakes a chip
  EXPECT_FALSE(after(watch, now_s, 55, look));
  const auto verdict = after(watch, now_s, 10, look);
  ASSERT_TRUE(verdict);
  EXPECT_FALSE(verdict->certain);
}

}  // namespace
}  // namespace ferry::hang
