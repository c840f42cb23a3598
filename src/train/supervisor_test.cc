#include "train/supervisor.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>
#include <optional>

#include "base/child_process.h"
#include "base/file.h"
#include "base/random.h"
#include "train/run_status.h"

namespace ferry::supervisor {
namespace {

// ---- The rules, one at a time
// -----------------------------------------------------------------------

/// Feeds events at given times and keeps what came of the last one.
struct Play {
  Settings settings;
  State state;
  std::vector<Action> actions;
  double now = 0;

  Play() { std::tie(state, actions) = begin(0, false); }
  Play& on(const Event& e, double after = 0) {
    const double end = now + after;
    while (end - now > 1) {  // the shell ticks
      now += 1;
      step(Tick{});
    }
    now = end;
    step(e);
    return *this;
  }
  void step(const Event& e) { std::tie(state, actions) = advance(state, e, now, settings); }
  template <typename T>
  bool has() const {
    for (const Action& a : actions)
      if (std::holds_alternative<T>(a)) return true;
    return false;
  }
  std::optional<int> exit() const {
    for (const Action& a : actions)
      if (const Exit* e = std::get_if<Exit>(&a)) return e->code;
    return std::nullopt;
  }
  Play& ticks(double seconds) {  // until something happens
    for (const double end = now + seconds; now < end && !state.done;) {
      now += 1;
      step(Tick{});
      if (!actions.empty()) break;
    }
    return *this;
  }
};

TEST(SupervisorRules, DoneVerdictAndWrongInputAreTheRunsOwn) {
  for (const int code : {0, 1, 2})
    EXPECT_EQ(Play().on(Started{}).on(Heartbeat{1}).on(Exited{code}).exit(), code);
}

TEST(SupervisorRules, ACrashStartsAgainFromTheCheckpointAfterAPause) {
  for (const Event& crash :
       {Event(Died{SIGSEGV}), Event(Exited{3}), Event(Exited{134}), Event(StartFailed{"fork"})}) {
    Play p;
    if (!std::holds_alternative<StartFailed>(crash)) p.on(Started{}).on(Heartbeat{7});
    p.on(crash);
    EXPECT_FALSE(p.has<Start>());
    p.ticks(3);
    ASSERT_TRUE(p.has<Start>());
    EXPECT_TRUE(std::get<Start>(p.actions[0]).resume);
    EXPECT_NEAR(p.now, 1, 1e-9);
  }
}

// A second process that computes wrongly in the same place: the place is to blame.
TEST(SupervisorRules, APlaceWhoseRanksAreConvictedAgainIsNamed) {
  Play p;
  p.on(Started{}).on(Heartbeat{7});
  RankLost lost{.who = "rank 1 left", .others = "rank 0", .held = true, .ranks = {1}};
  const auto blames_the_place = [&] {
    return std::any_of(p.actions.begin(), p.actions.end(), [](const Action& a) {
      const Log* log = std::get_if<Log>(&a);
      return log != nullptr && log->text.find("is to be replaced") != std::string::npos;
    });
  };
  lost.spoiled = {1};
  p.on(lost);
  EXPECT_TRUE(p.has<Replace>());
  EXPECT_FALSE(blames_the_place());
  lost.spoiled = {};  // it dies, as any process may
  p.on(Heartbeat{8}).on(lost);
  EXPECT_FALSE(blames_the_place());
  lost.ranks = lost.spoiled = {0};
  p.on(Heartbeat{9}).on(lost);
  EXPECT_FALSE(blames_the_place()) << "another place";
  lost.ranks = lost.spoiled = {1};
  p.on(Heartbeat{10}).on(lost);
  EXPECT_TRUE(blames_the_place());
  EXPECT_TRUE(p.has<Replace>());
}

TEST(SupervisorRules, ALostRankHasASuccessorAsLongAsThatMakesSense) {
  const RankLost lost{.who = "rank 1 died", .others = "rank 0", .held = true};
  Play p;
  p.on(Started{}).on(Heartbeat{7});
  p.on(lost);
  EXPECT_TRUE(p.has<Replace>());
  EXPECT_FALSE(p.has<Kill>() || p.has<Start>());
  EXPECT_EQ(std::get<Log>(p.actions[0]).text,
            "rank 1 died after step 7; rank 0 goes on, and a successor takes its place");
  // What it held nobody else holds.
  Play alone = p;
  alone.on(RankLost{.who = "rank 1 died", .others = "rank 0", .held = false});
  EXPECT_TRUE(alone.has<EndRest>());
  EXPECT_FALSE(alone.has<Replace>());
  // As often as it happens while steps are made; as often as a worker is started again while none is.
  for (int64_t step = 8; step < 40; ++step) {
    p.on(Heartbeat{step}).on(lost);
    EXPECT_TRUE(p.has<Replace>());
  }
  for (int n = 1; n < p.settings.failures_max; ++n) {
    p.on(lost);
    EXPECT_TRUE(p.has<Replace>()) << n;
  }
  p.on(lost);
  EXPECT_TRUE(p.has<EndRest>());
  p.on(Died{SIGKILL}).ticks(3);
  ASSERT_TRUE(p.has<Start>());
  // What a start from an older checkpoint makes is counted from there, not from where the run was before.
  p.on(Started{}).on(Heartbeat{.work = Work::kReadingData});
  p.on(lost);
  EXPECT_EQ(std::get<Log>(p.actions[0]).text,
            "rank 1 died while it started; rank 0 goes on, and a successor takes its place");
  p.on(Heartbeat{.step = 20, .work = Work::kFirstStep});
  for (int64_t step = 21; step < 37; ++step) {
    p.on(Heartbeat{step}).on(lost);
    EXPECT_TRUE(p.has<Replace>()) << step;
    EXPECT_NE(std::get<Log>(p.actions[0]).text.find(fmt::format("after step {};", step)),
              std::string::npos);
  }
  for (int n = 1; n < p.settings.failures_max; ++n) {
    EXPECT_TRUE(p.on(lost).has<Replace>()) << n;
  }
  p.on(lost);
  EXPECT_TRUE(p.has<EndRest>());
  // A run that is to stop saves with a successor; one that is being ended has none.
  Play stopping;
  stopping.on(Started{}).on(Heartbeat{7}).on(Signal{SIGTERM}).on(lost);
  EXPECT_TRUE(stopping.has<Replace>());
  stopping.on(Signal{SIGINT}, 1).on(lost);
  EXPECT_TRUE(stopping.has<EndRest>());
  EXPECT_FALSE(stopping.has<Replace>());
}

TEST(SupervisorRules, AfterADevicesFailureTheNextWorkerWaitsForEachLaunchUntilItIsPastTheStep) {
  Play p;
  p.on(Started{}).on(Heartbeat{7}).on(Exited{kDeviceFailed}).ticks(3);
  ASSERT_TRUE(p.has<Start>());
  EXPECT_EQ(std::get<Start>(p.actions[0]).replay_to, 8);
  // Another kind of end asks for nothing of the sort.
  p.on(Started{}).on(Heartbeat{9}).on(Died{SIGKILL}).ticks(3);
  ASSERT_TRUE(p.has<Start>());
  EXPECT_EQ(std::get<Start>(p.actions[0]).replay_to, 0);
}

TEST(SupervisorRules, WhatARestartDoesNotCureEndsTheRunAtOnce) {
  Play full;
  full.on(Started{}).on(Heartbeat{0}).on(Heartbeat{7}).on(Exited{kUseless});
  EXPECT_EQ(full.exit(), 3);
  // Too little memory before the first step: it does not fit. Later: it fitted.
  for (const int64_t begun : {0, 40}) {
    Play p;
    EXPECT_EQ(Play(p).on(Started{}).on(Exited{kOutOfMemory}).exit(), 3);
    p.on(Started{}).on(Heartbeat{begun});
    EXPECT_EQ(Play(p).on(Exited{kOutOfMemory}).exit(), 3);
    // It goes on from there, but says so only when it knows.
    Play resumed;
    resumed.on(Started{}).on(Heartbeat{.work = Work::kLoading});
    resumed.on(Heartbeat{.step = begun, .work = Work::kFirstStep});
    EXPECT_EQ(resumed.on(Exited{kOutOfMemory}).exit(), 3);
    p.on(Heartbeat{begun + 1}).on(Exited{kOutOfMemory}).ticks(3);
    ASSERT_TRUE(p.has<Start>());
    EXPECT_EQ(std::get<Start>(p.actions[0]).replay_to, 0);
    p.on(Started{}).on(Exited{kOutOfMemory}).ticks(3);  // who took it has not left yet
    EXPECT_TRUE(p.has<Start>());
  }
}

TEST(SupervisorRules, AHangThatCannotEndByItselfHasAShorterPatience) {
  Play p;
  p.settings.hang_patience_s = 20;
  p.on(Hung{100, true});
  EXPECT_TRUE(p.actions.empty()) << "nobody is there yet";
  p.on(Started{}).on(Heartbeat{7});
  EXPECT_TRUE(Play(p).on(Hung{20, true}).actions.empty());
  EXPECT_TRUE(Play(p).on(Hung{20.1, true}).has<Kill>());
  EXPECT_TRUE(Play(p).on(Hung{1e3, false}).actions.empty()) << "it may come back";
  EXPECT_FALSE(Play(p).on(Signal{SIGTERM}).on(Hung{1e3, true}).has<Kill>()) << "it may be saving";
  EXPECT_FALSE(Play(p).on(Hung{20.1, true}).on(Hung{30, true}, 1).has<Kill>()) << "twice";
  Play after = p;
  after.on(Hung{21, true}).on(Died{SIGKILL}).ticks(3);
  EXPECT_TRUE(after.has<Start>());
  p.settings = {};
  EXPECT_TRUE(p.on(Hung{1e6, true}).actions.empty()) << "nobody asked for it";
}

// What it lacked may be there a moment later, and the others hold all that there is until then.
TEST(SupervisorRules, ASuccessorThatFailsIsFollowedByAnotherAfterAPause) {
  const RankLost lost{.who = "rank 1 died", .others = "rank 0", .held = true};
  RankLost in_vain = lost;
  in_vain.in_vain = true;
  for (const Event& fails : {Event(in_vain), Event(NotReplaced{"fork: no memory"})}) {
    Play p;
    p.on(Started{}).on(Heartbeat{7}).on(lost);
    EXPECT_TRUE(p.has<Replace>());
    for (int n = 2; n <= p.settings.failures_max; ++n) {
      p.on(fails);
      EXPECT_FALSE(p.has<Replace>() || p.has<EndRest>()) << n;
      const std::string said = std::get<Log>(p.actions.at(0)).text;
      EXPECT_NE(said.find("another successor is started in 1.0 s"), std::string::npos) << said;
      EXPECT_NEAR(wake_at(p.state, p.settings), p.now + p.settings.backoff_first_s, 1e-9);
      // Whatever happens at that time.
      EXPECT_FALSE(Play(p).on(Heartbeat{7}, 0.5).has<Replace>());
      EXPECT_TRUE(Play(p).on(Heartbeat{7}, 1).has<Replace>());
      Play stopping = p;
      EXPECT_TRUE(stopping.on(Signal{SIGTERM}).has<Terminate>());
      EXPECT_TRUE(stopping.on(Tick{}, 1).has<Replace>()) << "it is needed for saving";
      // Nothing is started beside those that are ended.
      stopping = p;
      stopping.on(Signal{SIGTERM}).on(Signal{SIGTERM}, 0.5).on(Tick{}, 1);
      EXPECT_FALSE(stopping.has<Replace>());
      EXPECT_GT(wake_at(stopping.state, p.settings), stopping.now);
      p.on(Tick{}, 1);
      EXPECT_TRUE(p.has<Replace>()) << n;
      EXPECT_FALSE(Play(p).on(Tick{}, 1).has<Replace>()) << "once";
    }
    p.on(fails);
    EXPECT_TRUE(p.has<EndRest>());
    EXPECT_FALSE(p.on(Tick{}, 1).has<Replace>());
  }
}

TEST(SupervisorRules, OfSeveralRanksTheOneThatHangsIsEndedAndHasASuccessor) {
  const RankLost lost{
      .who = "rank 1 was ended by signal 9", .others = "rank 0", .held = true, .ranks = {1}};
  Play p;
  p.settings.hang_patience_s = 20;
  p.on(Started{}).on(Heartbeat{7});
  const auto ended = [](const Play& play) {
    for (const Action& a : play.actions)
      if (const auto* end = std::get_if<EndRank>(&a)) return end->rank;
    return -1;
  };
  Play asked = p;
  EXPECT_EQ(ended(asked.on(Hung{20.1, true, 1})), 1);
  EXPECT_FALSE(asked.has<Kill>());
  EXPECT_TRUE(Play(asked).on(Hung{30, true, 1}, 10).actions.empty()) << "twice";
  EXPECT_TRUE(Play(asked).on(lost).has<Replace>());
  EXPECT_EQ(ended(Play(asked).on(lost).on(Hung{21, true, 0}, 30)), 0) << "another one, later";
  // Another one is lost before that has ended: whose end is waited for does not change.
  RankLost another = lost;
  another.ranks = {2};
  Play both = Play(asked).on(another);
  EXPECT_TRUE(both.has<Replace>()) << "which is no hang again";
  EXPECT_TRUE(Play(both).on(Hung{30, true, 1}, 10).actions.empty()) << "twice";
  EXPECT_EQ(ended(both.on(lost).on(Heartbeat{8}).on(Hung{21, true, 0}, 30)), 0);
  // It is in the kernel, and does not end.
  asked.ticks(static_cast<int>(p.settings.step_patience_s) + 2);
  EXPECT_TRUE(asked.has<Kill>());

  // By the patience of the phase: who hangs is known, certain or not.
  Play patient = p;
  patient.on(Hung{5, false, 1});
  EXPECT_TRUE(patient.actions.empty());
  const int patience = static_cast<int>(p.settings.step_patience_s) + 1;
  EXPECT_EQ(ended(Play(patient).ticks(patience)), 1);
  EXPECT_TRUE(Play(p).ticks(patience).has<Kill>()) << "nobody knows who";
  EXPECT_TRUE(Play(patient).on(Hung{6, false, -1}).ticks(patience).has<Kill>()) << "all of them";
  EXPECT_TRUE(Play(patient).on(Heartbeat{8}).ticks(patience).has<Kill>()) << "it went on";
  EXPECT_TRUE(Play(patient).on(Hung{}).ticks(patience).has<Kill>()) << "nobody hangs any more";
  // Who hangs again has no second successor until a step is made.
  asked = p;
  asked.on(Hung{21, true, 1}).on(lost).on(Hung{21, true, 1}, 30);
  EXPECT_TRUE(Play(asked).on(lost).has<EndRest>());
  EXPECT_TRUE(Play(asked).on(Heartbeat{8}).on(lost).has<Replace>());
  EXPECT_TRUE(Play(patient).on(lost).ticks(patience).has<Kill>()) << "that one is gone";
}

TEST(SupervisorRules, WhatFollowsFromAHangIsTheShortestOfItsPatiences) {
  Play p;
  p.settings.hang_patience_s = 20;
  p.on(Started{}).on(Heartbeat{7});
  const auto follows = [&](bool certain, int rank = -1) {
    return what_follows(p.state, p.settings, Hung{5, certain, rank});
  };
  EXPECT_EQ(follows(true),
            "the worker is ended when that has lasted for 20.0 s (supervisor.hang_patience_s)");
  EXPECT_EQ(follows(false),
            "the worker is ended after 1 min 00 s without a sign of life "
            "(supervisor.step_patience_s)");
  EXPECT_EQ(follows(true, 1),
            "rank 1 is ended when that has lasted for 20.0 s (supervisor.hang_patience_s)");
  EXPECT_EQ(follows(false, 1),
            "rank 1 is ended after 1 min 00 s without a sign of life (supervisor.step_patience_s)");
  Play stopping = Play(p).on(Signal{SIGTERM});
  EXPECT_EQ(what_follows(stopping.state, p.settings, Hung{5, true, 1}),
            "the worker is ended 10 min 00 s after the signal (supervisor.stop_patience_s)");
  p.settings.hang_patience_s = 0;
  EXPECT_EQ(follows(true), follows(false));
  p.on(Heartbeat{.step = 8, .work = Work::kWriting});
  EXPECT_NE(follows(false).find("supervisor.save_patience_s"), std::string::npos);
}

TEST(SupervisorRules, GivesUpWhenRestartsGetNoFurtherButNotWhileTheyDo) {
  Play p;
  for (int i = 1; i <= 40; ++i) {  // each life gets one step further: goes on for ever
    p.on(Started{}).on(Heartbeat{i}).on(Died{SIGKILL});
    ASSERT_FALSE(p.state.done) << i;
    EXPECT_EQ(p.state.failures, 1);
    p.ticks(3);
    ASSERT_TRUE(p.has<Start>());
  }
  for (int i = 1; i <= p.settings.failures_max - 1; ++i) {
    p.on(Started{}).on(Heartbeat{40}).on(Died{SIGKILL});
    ASSERT_FALSE(p.state.done) << i;
    p.ticks(120);
    ASSERT_TRUE(p.has<Start>());
  }
  p.on(Started{}).on(Heartbeat{40}).on(Died{SIGKILL});
  EXPECT_EQ(p.exit(), 3);
}

// Steps that are made a second time are lost a second time with the worker: a run that only makes those gets nowhere.
TEST(SupervisorRules, AStepThatWasMadeBeforeIsNoProgressOfARestart) {
  Play p;
  p.on(Started{}).on(Heartbeat{90});
  for (int i = 0; i < p.settings.failures_max; ++i) {
    p.on(Died{SIGKILL});
    ASSERT_FALSE(p.state.done) << i;
    EXPECT_NE(std::get<Log>(p.actions[0]).text.find(i == 0 ? "after step 90;" : "after step 8"),
              std::string::npos);
    p.ticks(120);
    ASSERT_TRUE(p.has<Start>());
    p.on(Started{}).on(Heartbeat{.work = Work::kLoading});
    for (int64_t step = 60; step <= 80 + i; ++step) p.on(Heartbeat{step});
  }
  p.on(Died{SIGKILL});
  EXPECT_EQ(p.exit(), 3);
  EXPECT_NE(std::get<Log>(p.actions[0]).text.find("got no further than step 90"),
            std::string::npos);
}

// A run that has gone back from a loss spike makes steps of the same numbers, with other data: they are new.
TEST(SupervisorRules, AStepBehindALossSpikeThatWasGoneBackFromIsProgress) {
  Play p;
  p.on(Started{}).on(Heartbeat{90});
  for (int64_t i = 0; i < 3 * p.settings.failures_max; ++i) {
    p.on(Heartbeat{.step = 60 + i, .rewinds = 1}).on(Died{SIGKILL});
    ASSERT_FALSE(p.state.done) << i;
    EXPECT_EQ(p.state.failures, 1) << i;
    p.ticks(3);
    ASSERT_TRUE(p.has<Start>());
    // From the newest checkpoint, which is of before, to the spike once more.
    p.on(Started{}).on(Heartbeat{60}).on(Heartbeat{90});
  }
  // Who comes no further than the spike gets nowhere.
  for (int i = 1; i < p.settings.failures_max; ++i) {
    p.on(Died{SIGKILL});
    EXPECT_EQ(p.state.failures, i + 1);
    p.ticks(120);
    ASSERT_TRUE(p.has<Start>()) << i;
    p.on(Started{}).on(Heartbeat{60}).on(Heartbeat{90});
  }
  p.on(Died{SIGKILL});
  EXPECT_EQ(p.exit(), 3);
}

TEST(SupervisorRules, ARankThatIsLostWhileUndoneStepsAreMadeAgainHasASuccessor) {
  const RankLost lost{.who = "rank 1 died", .others = "rank 0", .held = true};
  Play p;
  p.on(Started{}).on(Heartbeat{90});
  for (int64_t step = 60; step < 80; ++step) {
    p.on(Heartbeat{.step = step, .rewinds = 1}).on(lost);
    EXPECT_TRUE(p.has<Replace>()) << step;
    EXPECT_NE(std::get<Log>(p.actions[0]).text.find(fmt::format("after step {};", step)),
              std::string::npos);
    EXPECT_EQ(p.state.losses, 1);
  }
  // What is out of memory there has run before; what fails there is looked for there.
  EXPECT_TRUE(Play(p).on(Exited{kOutOfMemory}).ticks(3).has<Start>());
  Play device = p;
  device.on(Exited{kDeviceFailed}).ticks(3);
  ASSERT_TRUE(device.has<Start>());
  EXPECT_EQ(std::get<Start>(device.actions[0]).replay_to, 80);
  // Saved behind the spike is saved, and what is lost since is lost.
  Play saved = p;
  saved.on(Heartbeat{.step = 80, .work = Work::kRemoving, .rewinds = 1});
  Play further = saved;
  further.on(Heartbeat{.step = 81, .rewinds = 1});
  for (Play* each : {&saved, &further}) {
    each->on(Died{SIGKILL}).ticks(3).on(Started{}).on(Heartbeat{.work = Work::kReadingData});
    each->on(Signal{SIGTERM}).on(Died{SIGTERM});
  }
  EXPECT_EQ(saved.exit(), 0);
  EXPECT_EQ(further.exit(), 3);
}

TEST(SupervisorRules, WhatAFirstWorkerSaysBeforeItsFirstStepNoRestartMends) {
  const Heartbeat starting{.work = Work::kLoading};
  Play first;
  first.on(Started{}).on(starting).on(Exited{3});
  EXPECT_EQ(first.exit(), 3);  // it left by itself: no device, no permission, a bug
  Play crashed;
  crashed.on(Started{}).on(starting).on(Died{SIGSEGV});
  EXPECT_FALSE(crashed.exit());
  crashed.ticks(3);
  ASSERT_TRUE(crashed.has<Start>());
  crashed.on(Started{}).on(starting).on(
      Exited{3});  // after a crash the chip may be away for a while
  EXPECT_FALSE(crashed.exit());
  Play trained;
  trained.on(Started{}).on(Heartbeat{1}).on(Exited{3});
  EXPECT_FALSE(trained.exit());
}

TEST(SupervisorRules, EachPhaseHasItsOwnPatience) {
  Settings settings{.start_patience_s = 300,
                    .step_patience_s = 40,
                    .evaluate_patience_s = 90,
                    .save_patience_s = 500};
  const struct {
    Work work;
    double patience;
    const char* says;
  } cases[] = {
      {Work::kReadingData, 300, "starting: reading the data set (1.00 KiB of 2.00 KiB)"},
      {Work::kLoading, 300, "starting: making the model"},
      {Work::kFirstStep, 300, "starting: its first step (1024 of 2048 micro-batches)"},
      {Work::kTraining, 40, "training (1024 of 2048 micro-batches of a step)"},
      {Work::kTakingPlace, 40, "taking the place of a rank that is gone (1.00 KiB of 2.00 KiB)"},
      {Work::kReference, 300, "starting: the reference's log-probabilities (1024 of 2048 pairs)"},
      {Work::kEvaluating, 90, "evaluating (1024 of 2048 tokens)"},
      {Work::kProbing, 500, "saving: answering the probes"},
      {Work::kWriting, 500, "saving: writing and hashing (1.00 KiB of 2.00 KiB)"},
      {Work::kRemoving, 500, "saving: removing old checkpoints"},
      {Work::kNoRoom, 500, "saving: waiting for somebody to free space on the disk"}};
  for (const auto& c : cases) {
    Play p;
    p.settings = settings;
    const Heartbeat beat{.step = 3, .work = c.work, .done = 1024, .total = 2048};
    p.on(Started{}).on(Heartbeat{.step = 3, .work = c.work}, 1).on(beat, 1);
    // Beats go on far beyond the patience: nothing is ended.
    for (int i = 0; i < 10; ++i) p.on(beat, 30);
    EXPECT_EQ(p.state.starts, 1) << c.says;
    const double spoke = p.now;
    p.ticks(10000);
    ASSERT_TRUE(p.has<Kill>()) << c.says;
    const double slow = p.settings.patience_intervals * 30;
    const bool steps =
        c.work == Work::kTraining || c.work == Work::kEvaluating || c.work == Work::kTakingPlace;
    EXPECT_NEAR(p.now - spoke, steps ? std::max(slow, c.patience) : c.patience, 1.01) << c.says;
    const std::string said = std::get<Log>(p.actions[0]).text;
    EXPECT_NE(said.find(c.says), std::string::npos) << said;
    EXPECT_NE(said.find("supervisor."), std::string::npos) << said;
  }
}

TEST(SupervisorRules, WakesWhenPatienceEnds) {
  Play p;
  p.settings.step_patience_s = 3;
  p.on(Started{}).on(Heartbeat{1}, 1);
  EXPECT_NEAR(wake_at(p.state, p.settings), 4, 1e-9);
  p.settings.step_patience_s = 100;
  EXPECT_NEAR(wake_at(p.state, p.settings), 1 + p.settings.tick_max_s / 2, 1e-9);
}

TEST(SupervisorRules, ASaveIsWaitedForWhileItGoesOnAndALastOneToo) {
  for (const bool stopping : {false, true}) {
    Play p;
    p.on(Started{}).on(Heartbeat{1}).on(Heartbeat{2}, 1);
    if (stopping) p.on(Signal{SIGTERM});
    for (int64_t i = 1; i <= 300; ++i) {  // five hours
      p.on(Heartbeat{.step = 2, .work = Work::kWriting, .done = i, .total = 300}, 60);
      ASSERT_EQ(p.state.worker, stopping ? State::Worker::kStopping : State::Worker::kRunning) << i;
    }
    p.ticks(2000);
    EXPECT_TRUE(p.has<Kill>());  // a hang in it is found all the same
    EXPECT_NEAR(p.now, 1 + 300 * 60 + 1801, 1.01);
  }
}

TEST(SupervisorRules, SilenceIsAHangAfterAMinuteOrTwentySteps) {
  Play fast;
  fast.on(Started{}).on(Heartbeat{1}).on(Heartbeat{2}, 1).ticks(1000);
  EXPECT_TRUE(fast.has<Kill>());
  EXPECT_NEAR(fast.now, 1 + 61, 1.01);
  Play slow;
  slow.on(Started{}).on(Heartbeat{1}).on(Heartbeat{2}, 10).ticks(1000);
  EXPECT_TRUE(slow.has<Kill>());
  EXPECT_NEAR(slow.now, 10 + 201, 1.01);
  Play never;
  never.on(Started{}).ticks(2000);
  EXPECT_TRUE(never.has<Kill>());
  EXPECT_NEAR(never.now, 901, 1.01);
  never.on(Died{SIGKILL}).ticks(3);
  EXPECT_TRUE(never.has<Start>());
}

/// On a chip a step is one wait at its end: nothing is heard between the second step's begin and end.
TEST(SupervisorRules, TheFirstStepSaysHowLongTheNextMayBeSilent) {
  Play p;
  p.on(Started{})
      .on(Heartbeat{.step = 0, .work = Work::kFirstStep})
      .on(Heartbeat{.step = 0, .work = Work::kFirstStep, .done = 4, .total = 4}, 1)
      .on(Heartbeat{.step = 1}, 99)
      .ticks(1900);
  EXPECT_FALSE(p.has<Kill>());
  p.ticks(200);
  EXPECT_TRUE(p.has<Kill>());
  EXPECT_NEAR(p.now, 100 + 2001, 1.01);
}

TEST(SupervisorRules, ManyBeatsOfAStepDoNotForgetHowLongItsEndMayBeSilent) {
  // Micro-batches of 1.5 s, and an update that says nothing for 90 s, as long as in the first step.
  Play p;
  p.on(Started{}).on(Heartbeat{.step = 0, .work = Work::kFirstStep}).on(Heartbeat{.step = 1}, 990);
  for (int64_t step = 1; step < 4; ++step) {
    for (int64_t done = 1; done <= 600; ++done)
      p.on(Heartbeat{.step = step, .done = done, .total = 600}, 1.5);
    p.ticks(90);
    EXPECT_FALSE(p.has<Kill>()) << "step " << step;
    p.on(Heartbeat{.step = step + 1});
  }
}

TEST(SupervisorRules, ItsOwnStopIsNotTheWorkersSilence) {
  Play p;
  p.on(Started{}).on(Heartbeat{1}).on(Heartbeat{2}, 1);
  p.now += 5000;  // Ctrl-Z, lunch, fg
  p.step(Tick{});
  EXPECT_TRUE(p.actions.empty());
  p.ticks(55);
  EXPECT_TRUE(p.actions.empty());
  p.ticks(20);
  EXPECT_TRUE(p.has<Kill>());
}

TEST(SupervisorRules, TheFirstSignalLetsTheWorkerSaveTheSecondEndsIt) {
  Play p;
  p.on(Started{}).on(Heartbeat{5}).on(Signal{SIGINT});
  EXPECT_TRUE(p.has<Terminate>());
  p.on(Heartbeat{6});
  EXPECT_TRUE(p.actions.empty());
  Play saved = p;
  EXPECT_EQ(saved.on(Exited{0}).exit(), 0);
  Play crashed = p;
  EXPECT_EQ(crashed.on(Died{SIGSEGV}).exit(), 3);  // and no restart
  Play endless = p;
  endless.ticks(10000);
  EXPECT_TRUE(endless.has<Kill>());
  EXPECT_NEAR(endless.now, 601, 1.01);
  p.on(Signal{SIGINT}, 1);
  EXPECT_TRUE(p.has<Kill>());
  EXPECT_EQ(p.on(Died{SIGKILL}).exit(), 3);
}

TEST(SupervisorRules, AnEchoIsNoSecondSignal) {
  Play p;
  p.on(Started{})
      .on(Heartbeat{5})
      .on(Signal{SIGTERM})
      .on(Signal{SIGTERM}, 0.01)
      .on(Signal{SIGINT}, 0.01);
  EXPECT_EQ(p.state.worker, State::Worker::kStopping);
  p.on(Signal{SIGTERM}, 0.5);
  EXPECT_TRUE(p.has<Kill>());
}

TEST(SupervisorRules, ASchedulersWarningAndItsEndAreOneSignal) {
  for (const int warning : {SIGUSR1, SIGUSR2, SIGHUP, SIGXCPU}) {
    Play p;
    p.on(Started{}).on(Heartbeat{5}).on(Signal{warning});
    EXPECT_TRUE(p.has<Terminate>());
    Play insisting = p;
    p.on(Signal{SIGTERM}, 90);  // the save that the warning began goes on
    EXPECT_TRUE(p.actions.empty());
    EXPECT_EQ(p.on(Exited{0}).exit(), 0);
    insisting.on(Signal{warning}, 1);
    EXPECT_TRUE(insisting.has<Kill>());
  }
  Play keyboard;
  keyboard.on(Started{}).on(Heartbeat{5}).on(Signal{SIGTERM}).on(Signal{SIGQUIT}, 1);
  EXPECT_TRUE(keyboard.has<Kill>());
}

TEST(SupervisorRules, AWorkerThatStillStartsHasNothingToSave) {
  Play p;
  p.on(Started{}).on(Heartbeat{.work = Work::kReadingData}).on(Signal{SIGTERM});
  EXPECT_TRUE(p.has<Terminate>());
  for (int i = 0; i < 9; ++i) p.on(Heartbeat{.work = Work::kReadingData, .done = i}, 1);
  EXPECT_EQ(p.state.worker, State::Worker::kStopping);
  p.ticks(5);
  EXPECT_TRUE(p.has<Kill>());
  EXPECT_EQ(p.on(Died{SIGKILL}).exit(), 0);
}

/// A scheduler reads the status: steps that a crash lost are lost, wherever the stop then comes.
TEST(SupervisorRules, AStopWhileAnotherWorkerStartsSaysWhetherStepsWereLost) {
  Play crashed;
  crashed.on(Started{}).on(Heartbeat{4}).on(Heartbeat{5});
  Play saved = crashed, gone_on = crashed, left_out = crashed;
  saved.on(Heartbeat{.step = 5, .work = Work::kRemoving});
  gone_on.on(Heartbeat{.step = 5, .work = Work::kWriting})
      .on(Heartbeat{5});  // not every beat is heard
  left_out.on(Heartbeat{.step = 5, .work = Work::kWriting})
      .on(Heartbeat{.step = 5, .work = Work::kNoRoom})
      .on(Heartbeat{5});
  for (Play* p : {&crashed, &saved, &gone_on, &left_out}) {
    p->on(Died{SIGSEGV}).ticks(10);
    p->on(Started{}).on(Heartbeat{.work = Work::kReadingData}).on(Signal{SIGTERM});
  }
  const auto ends = [](const Play& p) {
    Play left = p, died = p;
    left.on(Exited{0});  // it heard the signal while it read
    died.on(Died{SIGTERM});
    EXPECT_EQ(left.exit(), died.exit());
    return left.exit();
  };
  EXPECT_EQ(ends(crashed), 3);
  EXPECT_EQ(ends(saved), 0);
  EXPECT_EQ(ends(gone_on), 0);
  EXPECT_EQ(ends(left_out), 3);
}

TEST(SupervisorRules, ASignalIsNeverLostBetweenWorkers) {
  Play starting;
  starting.on(Signal{SIGTERM});
  EXPECT_FALSE(starting.has<Terminate>());
  starting.on(Started{});
  EXPECT_TRUE(starting.has<Terminate>());
  EXPECT_EQ(starting.on(Died{SIGTERM}).exit(), 0);  // died of it before it could begin
  Play waiting;
  waiting.on(Started{}).on(Died{SIGBUS});
  EXPECT_EQ(waiting.on(Signal{SIGTERM}).exit(), 3);
}

TEST(SupervisorRules, AWorkerThatOutlivesSigkillGetsNoSuccessor) {
  Play p;
  p.on(Started{}).on(Heartbeat{1}).ticks(100);
  ASSERT_TRUE(p.has<Kill>());
  p.ticks(100);
  EXPECT_EQ(p.exit(), 3);
  EXPECT_FALSE(p.has<Start>());
}

// ---- Thousands of random worlds
// ---------------------------------------------------------------------

/// A world with at most one real worker, whose vices are drawn from the seed. Returns what was
/// broken.
std::string simulate(uint64_t seed) {
  const Random random(seed, RandomPurpose::kTest, 0);
  uint64_t draws = 0;
  const auto chance = [&](double p) { return random.uniform(draws++) < p; };
  const double crash = chance(0.5) ? 0.02 : 0, hang = chance(0.5) ? 0.01 : 0,
               signal = chance(0.5) ? 0.003 : 0;
  const bool several = chance(0.5);  // two ranks, each of which may be lost, or hang, alone
  const bool deaf = chance(0.2), immortal = chance(0.05), stuck = chance(0.2),
             user_error = chance(0.05);
  const int64_t steps = 200;
  Settings settings{.start_patience_s = 30,
                    .step_patience_s = 10,
                    .evaluate_patience_s = 15,
                    .save_patience_s = 25,
                    .hang_patience_s = chance(0.5) ? 8.0 : 0.0,
                    .stop_patience_s = 20,
                    .leave_s = 10,
                    .kill_s = 5};
  double now = 0;
  bool alive = false, hung = false, asked = false, signalled = false, pending_start = false;
  int hung_rank = -1;
  int64_t step = 0, checkpoint = 0;
  int terminates = 0, workers_when_signalled = 0;
  auto [state, actions] = begin(now, false);
  std::vector<Event> queue;
  for (int round = 0; round < 200000; ++round) {
    for (const Action& a : actions) {
      if (std::holds_alternative<Start>(a)) {
        if (alive) return "two workers";
        if (signalled) return "a worker started after a signal";
        pending_start = true;
      } else if (std::holds_alternative<Terminate>(a)) {
        if (!alive) return "SIGTERM to nobody";
        if (++terminates > 1) return "SIGTERM twice";
        if (!deaf) asked = true;
      } else if (std::holds_alternative<Kill>(a)) {
        if (alive && !immortal) {
          alive = false;
          queue.push_back(Died{SIGKILL});
        }
      } else if (const EndRank* end = std::get_if<EndRank>(&a)) {
        if (!hung) return "ended a rank that went on";
        if (end->rank != hung_rank) return "ended another rank than the one that hung";
        if (!immortal)
          queue.push_back(RankLost{"rank", "the other", chance(0.9), false, {end->rank}});
      } else if (std::holds_alternative<Replace>(a)) {
        if (!alive && queue.empty()) return "a successor without others";
        hung = false;
        if (chance(0.1)) queue.push_back(NotReplaced{"no memory"});
      } else if (std::holds_alternative<EndRest>(a)) {
        if (alive) queue.push_back(Died{SIGKILL});
        alive = false;
      } else if (const Exit* e = std::get_if<Exit>(&a)) {
        if (alive && !immortal) return "left a worker behind";
        if (signalled && workers_when_signalled > 0 && terminates == 0) return "SIGTERM lost";
        if (e->code == 0 && step < steps && !signalled) return "status 0 before the last step";
        const auto [after, nothing] = advance(state, Tick{}, now + 1000, settings);
        if (!nothing.empty()) return "acts after its end";
        return "";
      }
    }
    if (pending_start) {  // fork may fail; a signal may come first
      if (!signalled && chance(signal)) {
        signalled = true;
        workers_when_signalled = 1;
        queue.push_back(Signal{SIGTERM});
      }
      pending_start = hung = asked = false;
      if (chance(0.02) && !signalled) {
        queue.push_back(StartFailed{"no memory"});
      } else {
        alive = true;
        step = checkpoint;
        queue.push_back(Started{});
      }
    }
    if (queue.empty()) {
      now += 0.5 + random.uniform(draws++);
      if (chance(0.001)) now += 100;  // suspended
      Event e = Tick{};
      if (!signalled && chance(signal)) {
        signalled = true;
        workers_when_signalled = alive && state.worker != State::Worker::kKilled;
        e = Signal{SIGINT};
      } else if (signalled && chance(signal)) {
        e = Signal{SIGINT};
      } else if (alive && user_error) {
        alive = false;
        e = Exited{2};
      } else if (alive && asked) {
        if (chance(0.3)) {
          alive = false;
          e = chance(0.8) ? Event(Exited{0}) : Event(Died{SIGSEGV});
        }
      } else if (alive && several && !hung && chance(crash)) {
        e = RankLost{"rank", "the other", chance(0.9), chance(0.2), {}};
      } else if (alive && (chance(crash) || (stuck && step >= steps / 2))) {
        alive = false;
        e = chance(0.5) ? Event(Died{SIGSEGV}) : Event(Exited{3});
      } else if (alive && !hung) {
        hung = chance(hang);
        hung_rank = several && chance(0.8) ? static_cast<int>(random.below(draws++, 2)) : -1;
        if (++step % 10 == 0) checkpoint = step;
        const Work works[] = {Work::kTraining, Work::kEvaluating, Work::kWriting};
        e = Heartbeat{.step = step, .work = works[random.below(draws++, 3)]};
        if (step >= steps) {
          alive = false;
          queue.push_back(Exited{0});
        }
      }
      if (hung && std::holds_alternative<Tick>(e) && chance(0.3))
        e = Hung{40 * random.uniform(draws++), chance(0.7), hung_rank};
      else if (hung && std::holds_alternative<Tick>(e) && chance(0.1)) {
        hung = false;  // it goes on
        e = Hung{};
      }
      queue.insert(queue.begin(), e);
    }
    const Event e = queue.front();
    queue.erase(queue.begin());
    std::tie(state, actions) = advance(state, e, now, settings);
    if (!state.done && wake_at(state, settings) > now + settings.tick_max_s)
      return "sleeps too long";
  }
  return "never ends";
}

TEST(SupervisorSimulation, KeepsItsPromisesInFiveThousandWorlds) {
  for (uint64_t seed = 1; seed <= 5000; ++seed) ASSERT_EQ(simulate(seed), "") << "seed=" << seed;
}

// ---- Real processes
// ---------------------------------------------------------------------------------

class SupervisedProcess : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fmt::format("{}ferry_supervisor_{}", ::testing::TempDir(), ::getpid());
    ASSERT_TRUE(remove_tree(folder_));
    ASSERT_TRUE(make_folders(folder_));
  }
  void TearDown() override { ASSERT_TRUE(remove_tree(folder_)); }

  std::string in_folder(const char* name) const { return join_path(folder_, name); }

  int run(const std::string& first,
          const std::string& again,
          Settings settings = {.backoff_first_s = 0.01},
          const std::string& replay = "") {
    const Command command{"/bin/sh", "sh", {"-c", first}, {"-c", again}, replay};
    return supervise(
        command,
        settings,
        system_clock(),
        [this](std::string_view s) { said_ += std::string(s) + "\n"; },
        {.pid = 77},
        [this](int64_t pid) { began_.push_back(pid); },
        [this](const RunStatus& s) { shown_.push_back(s); });
  }

  /// Waits until the file is there, at most 10 s.
  static bool appears(const std::string& path) {
    for (int i = 0; i < 1000 && !path_exists(path); ++i) pause_ms(10);
    return path_exists(path);
  }
  static void pause_ms(long ms) {
    const timespec t{0, ms * 1000000};
    ::nanosleep(&t, nullptr);
  }
  static bool runs(pid_t pid) {  // a zombie that nobody reaps does not
    const auto stat = read_file(fmt::format("/proc/{}/stat", pid));
    return stat && stat->find(") Z") == std::string::npos;
  }

  std::string folder_, said_;
  std::vector<int64_t> began_;
  std::vector<RunStatus> shown_;
};

/// Five steps are done; it trains, and waits for no rank (Heartbeat's bytes).
constexpr const char* kBeat =
    "printf '\\005\\0\\0\\0\\0\\0\\0\\0\\003\\0\\0\\0\\377\\377\\377\\377"
    "\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0"
    "\\0\\0\\0\\0\\0\\0\\0\\0' >&3; ";
static_assert(sizeof(Heartbeat) == 48 && static_cast<int>(Work::kTraining) == 3);

TEST_F(SupervisedProcess, PassesTheStatusOn) {
  EXPECT_EQ(run("exit 0", "exit 1"), 0);
  EXPECT_EQ(run("exit 2", "exit 0"), 2);
}

TEST_F(SupervisedProcess, StartsACrashedWorkerAgainWithTheOtherArguments) {
  EXPECT_EQ(run(std::string(kBeat) + "kill -SEGV $$", "exit 0"), 0);
  EXPECT_NE(said_.find("signal 11"), std::string::npos) << said_;
  EXPECT_NE(said_.find("after step 5"), std::string::npos) << said_;
}

TEST_F(SupervisedProcess, ShowsWhatTheRunIsAt) {
  EXPECT_EQ(run(std::string(kBeat) + "sleep 0.3; kill -SEGV $$",
                std::string(kBeat) + "sleep 0.3; exit 0"),
            0);
  std::vector<std::string> stages;
  for (const RunStatus& s : shown_) {
    EXPECT_EQ(s.pid, 77);
    if (stages.empty() || stages.back() != s.stage) stages.push_back(s.stage);
    if (s.stage != "running") continue;
    ASSERT_EQ(s.ranks.size(), 1u);
    EXPECT_EQ(s.ranks[0].step, 5);
    EXPECT_EQ(s.ranks[0].doing, "training");
    EXPECT_GT(s.ranks[0].pid, 0);
    EXPECT_NEAR(static_cast<double>(s.ranks[0].heard_unix_ms),
                static_cast<double>(s.written_unix_ms),
                2000);
  }
  EXPECT_EQ(
      stages,
      (std::vector<std::string>{"running", "between two starts", "starting", "running", "ended"}));
  const RunStatus& last = shown_.back();
  EXPECT_EQ(last.exit_code, 0);
  EXPECT_EQ(last.starts, 2);
  ASSERT_EQ(last.said.size(), 1u);
  EXPECT_NE(last.said[0].text.find("signal 11"), std::string::npos) << last.said[0].text;
}

/// Of a short run the first status may come when nobody is left that it could tell of.
TEST_F(SupervisedProcess, TellsOfEachProcessWhenItBegins) {
  const std::string pid = fmt::format("echo $$ >> {}; ", in_folder("pids"));
  EXPECT_EQ(run(pid + kBeat + "kill -SEGV $$", pid + kBeat + "exit 0"), 0);
  std::string began;
  for (const int64_t one : began_) began += fmt::format("{}\n", one);
  EXPECT_EQ(began, *read_file(in_folder("pids")));
  EXPECT_EQ(began_.size(), 2u);
}

// A worker that has not begun to load may have been refused the folder: what another run shows stays.
TEST_F(SupervisedProcess, ShowsNothingOfAFolderThatIsNotItsOwn) {
  EXPECT_EQ(run("exit 2", "exit 0"), 2);
  EXPECT_TRUE(shown_.empty());
}

TEST_F(SupervisedProcess, TellsTheWorkerAfterADevicesFailureHowFarToReplay) {
  Settings settings{.backoff_first_s = 0.01};
  // The shell gets the option as $0.
  EXPECT_EQ(run(std::string(kBeat) + "exit 4",
                "test \"$0\" = --replay-to=6 && exit 1; exit 2",
                settings,
                "--replay-to"),
            1)
      << said_;
}

TEST_F(SupervisedProcess, GivesUpAndEndsAHang) {
  Settings settings{
      .failures_max = 1, .backoff_first_s = 0.01, .start_patience_s = 0.05, .tick_max_s = 0.1};
  EXPECT_EQ(run("exec sleep 20", "exit 3", settings), 3);
  EXPECT_NE(said_.find("no sign of life"), std::string::npos) << said_;
  EXPECT_NE(said_.find("giving up"), std::string::npos) << said_;
}

/// A log may be read slowly: by then what it tells of has been done.
TEST_F(SupervisedProcess, EndsAHangBeforeItTellsOfIt) {
  const std::string hang =
      fmt::format("echo $$ > {0}.tmp; mv {0}.tmp {0}; {1} exec sleep 60", in_folder("pid"), kBeat);
  const Command command{"/bin/sh", "sh", {"-c", hang}, {"-c", "exit 2"}, ""};
  const Settings settings{.backoff_first_s = 0.01, .step_patience_s = 0.3, .patience_intervals = 0};
  bool told = false, lives = true;
  EXPECT_EQ(supervise(
                command,
                settings,
                system_clock(),
                [&](std::string_view text) {
                  if (text.find("ending it") == text.npos) return;
                  told = true;
                  const pid_t worker = std::stoi(*read_file(in_folder("pid")));
                  for (int i = 0; i < 500 && runs(worker); ++i) pause_ms(10);
                  lives = runs(worker);
                },
                {},
                [](int64_t) {},
                [](const RunStatus&) {}),
            2);
  EXPECT_TRUE(told);
  EXPECT_FALSE(lives);
}

TEST_F(SupervisedProcess, ForwardsASignalAndLetsTheWorkerSave) {
  const std::string loop =
      fmt::format("trap 'touch {}; exit 0' TERM; {} touch {}; while :; do sleep 0.02; done",
                  in_folder("saved"),
                  kBeat,
                  in_folder("up"));
  const pid_t supervisor = ::fork();
  if (supervisor == 0) ::_exit(run(loop, "exit 9"));
  ASSERT_TRUE(appears(in_folder("up")));
  ::kill(supervisor, SIGINT);
  int status = 0;
  ASSERT_EQ(::waitpid(supervisor, &status, 0), supervisor);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(path_exists(in_folder("saved")));
}

TEST_F(SupervisedProcess, TheWorkerDiesWithItsSupervisor) {
  const std::string loop =
      fmt::format("trap '' TERM; echo $$ > {0}.tmp; mv {0}.tmp {0}; while :; do sleep 0.02; done",
                  in_folder("pid"));
  const pid_t supervisor = ::fork();
  if (supervisor == 0) ::_exit(run(loop, "exit 9"));
  ASSERT_TRUE(appears(in_folder("pid")));
  const pid_t worker = std::stoi(*read_file(in_folder("pid")));
  EXPECT_TRUE(runs(worker));
  ::kill(supervisor, SIGKILL);
  ASSERT_EQ(::waitpid(supervisor, nullptr, 0), supervisor);
  for (int i = 0; i < 500 && runs(worker); ++i) pause_ms(10);
  EXPECT_FALSE(runs(worker));
}

TEST(Pulse, IsSilentUnlessSupervised) {
  EXPECT_TRUE(Pulse::open(false));
  const int saved = ::dup(ChildProcess::kPipeFd);
  ::close(ChildProcess::kPipeFd);
  const auto pulse = Pulse::open(true);
  ASSERT_FALSE(pulse);
  EXPECT_EQ(pulse.error().code, Code::kInvalidInput);
  if (saved >= 0) {
    ::dup2(saved, ChildProcess::kPipeFd);
    ::close(saved);
  }
}

}  // namespace
}  // namespace ferry::supervisor
