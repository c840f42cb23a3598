// Several processes as one worker: whose end it was, whom silence is held against, and that none outlives another's
// failure.
#include "train/worker_crew.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "base/clock.h"
#include "base/file.h"

namespace ferry::supervisor {
namespace {

int left(int code) { return W_EXITCODE(code, 0); }
int killed(int signal) { return W_EXITCODE(0, signal); }

TEST(WorkerCrew, TheCauseIsNoConsequence) {
  const struct {
    std::vector<RankEnd> ends;
    int cause;
  } cases[] = {
      {{{0, left(kLinkFailed)}, {2, left(kLinkFailed)}, {1, killed(SIGKILL)}}, 1},
      {{{1, killed(SIGSEGV)}, {0, left(kLinkFailed)}}, 1},
      {{{2, left(0)}, {1, left(0)}, {0, left(kUseless)}}, 0},
      {{{1, left(kLinkFailed)}, {0, left(2)}}, 0},
      {{{1, left(2)}, {0, left(2)}}, 1},
      {{{2, left(2)}, {1, left(kDeviceFailed)}}, 1},
      {{{2, left(kLinkFailed)}, {1, left(kLinkFailed)}}, 2},
      {{{2, left(0)}, {1, left(0)}, {0, left(0)}}, 0},
  };
  for (const auto& c : cases) EXPECT_EQ(cause_of(c.ends).rank, c.cause);
}

TEST(WorkerCrew, OthersGoOnForAsLongAsThatMakesSense) {
  EXPECT_EQ(others_may_go_on_s({1, killed(SIGKILL)}), 0);
  EXPECT_EQ(others_may_go_on_s({1, left(kOutOfMemory)}), 0);
  EXPECT_EQ(others_may_go_on_s({1, left(3)}), 0);
  EXPECT_GT(others_may_go_on_s({1, left(kLinkFailed)}).value_or(0), 0);
  for (const int verdict : {0, 1, 2})
    EXPECT_EQ(others_may_go_on_s({1, left(verdict)}), std::nullopt) << verdict;
}

TEST(WorkerCrew, TheSilentOneThatWaitsForNobodyIsNamedFirst) {
  const std::vector<RankReport> ranks = {
      {.last = {.step = 7, .work = Work::kTraining, .waits_for = 1, .done = 2, .total = 2}},
      {.last = {.step = 7, .work = Work::kTraining, .done = 1, .total = 2},
       .since_s = 39,
       .stopped = true},
      {.last = {}, .ended = true}};
  EXPECT_EQ(who_holds_up(ranks, 100),
            "rank 1: training (1 of 2 micro-batches of a step), silent for 1 min 01 s (a signal "
            "has stopped it); rank 0: training "
            "(2 of 2 micro-batches of a step), waiting for rank 1");
}

TEST(WorkerCrew, OneThatIsStoppedHoldsTheOthersUpThoughItWaitedItself) {
  const std::vector<RankReport> ranks = {
      {.last = {.step = 7, .work = Work::kTraining, .waits_for = 1, .done = 2, .total = 2}},
      {.last = {.step = 7, .work = Work::kTraining, .waits_for = 0, .done = 2, .total = 2},
       .since_s = 39,
       .stopped = true}};
  EXPECT_TRUE(who_holds_up(ranks, 100).starts_with("rank 1: ")) << who_holds_up(ranks, 100);
}

Command shell(const std::string& script, int ranks) {
  return {.program = "/bin/sh",
          .name = "sh",
          .first = {},
          .again = {},
          .replay = "",
          .handed = "settings",
          .ranks = ranks,
          .ranked = script,
          .replacing = "in place"};
}

/// Its end, what it was in words, and how long that took.
struct Ended {
  Event event;
  std::string cause;
  double seconds;
};
Ended run(const std::string& script, int ranks) {
  sigset_t none;
  sigemptyset(&none);
  const Clock& clock = system_clock();
  const double begin = clock.monotonic_s();
  Result<WorkerCrew> crew = WorkerCrew::start(shell(script, ranks), {"sh", "-c"}, none, begin);
  EXPECT_TRUE(crew) << crew.error().message;
  for (;;) {
    crew->heard(clock.monotonic_s());
    const std::optional<Event> e = crew->ended(clock.monotonic_s());
    if (e && std::holds_alternative<RankLost>(*e))
      crew->end_rest(clock.monotonic_s());
    else if (e)
      return {*e, crew->cause(), clock.monotonic_s() - begin};
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

/// A script that goes by the rank of its ticket. What is to be killed takes the shell's place: a child of the shell
/// would live on, and hold what the test writes to.
std::string by_rank(const std::string& zero, const std::string& one, const std::string& others) {
  return "read -r t <&7; r=${t##*rank??}; case ${r%%[!0-9]*} in 0) " + zero + ";; 1) " + one +
         ";; *) " + others + ";; esac";
}

/// What a script does until a file is there: nothing is bet on who comes first.
std::string until(const std::string& file) {
  return "until test -e " + file + "; do sleep 0.02; done; ";
}

TEST(WorkerCrew, OneThatDiesTakesTheOthersAlong) {
  const Ended e = run(by_rank("exec sleep 100", "kill -KILL $$", "exec sleep 100"), 3);
  ASSERT_TRUE(std::holds_alternative<Died>(e.event));
  EXPECT_EQ(std::get<Died>(e.event).signal, SIGKILL);
  EXPECT_EQ(e.cause, "rank 1 was ended by signal 9 (Killed)");
  EXPECT_LT(e.seconds, 50);
}

TEST(WorkerCrew, IsDoneWhenAllAre) {
  const Ended e = run(by_rank("sleep 0.2", "exit 0", "exit 0"), 3);
  ASSERT_TRUE(std::holds_alternative<Exited>(e.event));
  EXPECT_EQ(std::get<Exited>(e.event).code, 0);
  EXPECT_EQ(e.cause, "");
  EXPECT_GE(e.seconds, 0.2);
}

// All that there was to do rank 0 has done: nobody waits half an hour for another to leave.
TEST(WorkerCrew, OneThatDoesNotLeaveWhenRankZeroIsThroughIsEnded) {
  for (const int status : {0, 2}) {
    const Ended e = run(
        by_rank(
            "exit " + std::to_string(status), "kill -STOP $$", "exit " + std::to_string(status)),
        3);
    ASSERT_TRUE(std::holds_alternative<Exited>(e.event)) << status;
    EXPECT_EQ(std::get<Exited>(e.event).code, status);
    EXPECT_EQ(e.cause, "rank 1 had not left 10.0 s after rank 0, which is through, and is ended");
    EXPECT_LT(e.seconds, 50);
  }
}

TEST(WorkerCrew, ASaveIsFinishedWhenAnotherRankDies) {
  const std::string beat = testing::TempDir() + "/ferry_saving_beat";
  for (const Work work : {Work::kWriting, Work::kTraining}) {
    const Heartbeat says{.step = 3, .work = work};
    ASSERT_TRUE(
        write_file_atomic(beat, std::string(reinterpret_cast<const char*>(&says), sizeof says)));
    // Rank 0 leaves by itself, or is ended with the others.
    const std::string said = beat + ".said";
    std::filesystem::remove(said);
    const Ended e = run(by_rank("cat " + beat + " >&3; echo > " + said + "; sleep 1; echo > " +
                                    beat + ".whole; exit 7",
                                until(said) + "kill -KILL $$",
                                "exec sleep 100 >/dev/null"),
                        2);
    ASSERT_TRUE(std::holds_alternative<Died>(e.event));
    EXPECT_EQ(e.cause, "rank 1 was ended by signal 9 (Killed)");
    EXPECT_EQ(std::filesystem::remove(beat + ".whole"), work == Work::kWriting);
  }
}

TEST(WorkerCrew, RankZeroKilledWhileItWritesIsNotDone) {
  sigset_t none;
  sigemptyset(&none);
  const Clock& clock = system_clock();
  Result<WorkerCrew> crew = WorkerCrew::start(
      shell(by_rank("exec sleep 100", "exit 0", "exit 0"), 3), {"sh", "-c"}, none, 0);
  ASSERT_TRUE(crew) << crew.error().message;
  const double begin = clock.monotonic_s();
  std::optional<Event> end;
  while (!(end = crew->ended(clock.monotonic_s()))) {
    if (clock.monotonic_s() - begin > 1) crew->kill();  // the others are long done
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_TRUE(std::holds_alternative<Died>(*end));
  EXPECT_EQ(std::get<Died>(*end).signal, SIGKILL);
}

TEST(WorkerCrew, AVerdictIsWaitedFor) {
  const Ended e = run(by_rank("sleep 0.2; exit 2", "exit 2", "exit 2"), 3);
  ASSERT_TRUE(std::holds_alternative<Exited>(e.event));
  EXPECT_EQ(std::get<Exited>(e.event).code, 2);
  EXPECT_EQ(e.cause, "");  // it is all the ranks'
  EXPECT_GE(e.seconds, 0.2);
}

TEST(WorkerCrew, EachIsHandedItsSettingsAndToldItsPlace) {
  const Ended e = run(
      "test \"$(cat /proc/self/fd/4)\" = settings && test -S /proc/self/fd/5 && read -r t <&7 && "
      "test -n \"$t\" && exit 19",
      2);
  ASSERT_TRUE(std::holds_alternative<Exited>(e.event));
  EXPECT_EQ(std::get<Exited>(e.event).code, 19);
}

TEST(WorkerCrew, OnlyAnEndOfItsOwnMayHaveASuccessor) {
  for (const int status : {killed(SIGKILL),
                           killed(SIGSEGV),
                           left(kDeviceFailed),
                           left(kOutOfMemory),
                           left(kLinkFailed),
                           left(kSpoiled)})
    EXPECT_TRUE(may_have_successor({1, status})) << status;
  for (const int status : {left(0), left(1), left(2), left(3), left(kUseless), left(kStateLost)})
    EXPECT_FALSE(may_have_successor({1, status})) << status;
}

/// A crew whose ranks train from the beginning on, as far as it knows; successors when $train is run.
class Crew {
 public:
  Crew(const std::string& script, int ranks) {
    const Heartbeat trains{.step = 7, .work = Work::kTraining};
    EXPECT_TRUE(write_file_atomic(
        beat_, std::string(reinterpret_cast<const char*>(&trains), sizeof trains)));
    sigset_t none;
    sigemptyset(&none);
    Result<WorkerCrew> crew = WorkerCrew::start(
        shell("train='cat " + beat_ + "'; case $0 in *place*) ;; *) $train >&3;; esac; " + script,
              ranks),
        {"sh", "-c"},
        none,
        now());
    EXPECT_TRUE(crew) << crew.error().message;
    crew_.emplace(*std::move(crew));
    // Whoever is told something after its end must not end the test.
    ::signal(SIGPIPE, SIG_IGN);
    while (!all_train()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  /// What scripts wait for `until` this crew is told to let_go.
  static std::string file(const std::string& word) {
    return testing::TempDir() + "/ferry_crew_" + std::to_string(::getpid()) + word;
  }
  static void let_go(const std::string& word) { EXPECT_TRUE(write_file_atomic(file(word), "")); }
  ~Crew() {
    for (const char* word : {"first", "second"}) std::filesystem::remove(file(word));
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  WorkerCrew& operator*() { return *crew_; }
  WorkerCrew* operator->() { return &*crew_; }
  /// The next thing that happens.
  Event next() {
    for (;;) {
      crew_->heard(now());
      if (const std::optional<Event> e = crew_->ended(now())) return *e;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  std::string whole_again() {
    for (;;) {
      crew_->heard(now());
      if (const std::optional<std::string> said = crew_->whole_again()) return *said;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  static double now() { return system_clock().monotonic_s(); }

 private:
  bool all_train() {
    crew_->heard(now());
    const std::vector<RankStatus> ranks = crew_->status(now(), 0);
    return std::all_of(ranks.begin(), ranks.end(), [](const RankStatus& r) { return r.step == 7; });
  }
  const std::string beat_ = testing::TempDir() + "/ferry_training_beat";
  std::optional<WorkerCrew> crew_;
};

// The second ticket is another meeting's, and reaches those that live as well as the successor, which is told what it
// is: then all leave.
TEST(WorkerCrew, ALostRankHasASuccessorWhomAllMeet) {
  const std::string leave = until(Crew::file("second")) + "exit 0;; ";
  const std::string second = "read -r u <&7; case $u in *epoch??2,*) " + leave + "*) exit 2;; esac";
  const std::string successor =
      "case $0 in *place*) case $t in *epoch??2,*) $train >&3; " + leave + "esac;; esac; ";
  Crew crew(by_rank(second, successor + until(Crew::file("first")) + "kill -KILL $$", second), 3);
  Crew::let_go("first");
  const Event lost = crew.next();
  ASSERT_TRUE(std::holds_alternative<RankLost>(lost));
  EXPECT_EQ(std::get<RankLost>(lost).who, "rank 1 was ended by signal 9 (Killed)");
  EXPECT_EQ(std::get<RankLost>(lost).others, "rank 0 and rank 2");
  EXPECT_TRUE(std::get<RankLost>(lost).held);
  EXPECT_FALSE(std::get<RankLost>(lost).in_vain);
  EXPECT_EQ(crew->whole_again(), std::nullopt) << "nobody has taken its place";
  ASSERT_TRUE(crew->replace(Crew::now()).all);
  EXPECT_TRUE(crew.whole_again().starts_with("rank 1 is in place again, "));
  Crew::let_go("second");
  const Event end = crew.next();
  ASSERT_TRUE(std::holds_alternative<Exited>(end));
  EXPECT_EQ(std::get<Exited>(end).code, 0);
}

TEST(WorkerCrew, NeighboursLostTogetherAreNotHeldByOthers) {
  Crew crew(by_rank("exec sleep 100",
                    until(Crew::file("second")) + "kill -KILL $$",
                    until(Crew::file("first")) + "kill -KILL $$"),
            3);
  Crew::let_go("first");
  Event lost = crew.next();
  ASSERT_TRUE(std::holds_alternative<RankLost>(lost));
  EXPECT_TRUE(std::get<RankLost>(lost).held);
  Crew::let_go("second");
  lost = crew.next();  // nobody has answered: both are lost
  ASSERT_TRUE(std::holds_alternative<RankLost>(lost));
  EXPECT_FALSE(std::get<RankLost>(lost).held);
  crew->end_rest(Crew::now());
  EXPECT_TRUE(std::holds_alternative<Died>(crew.next()));
}

TEST(WorkerCrew, ASuccessorThatCannotBeStartedMayBeLater) {
  Crew crew(by_rank("exec sleep 100",
                    "case $0 in *place*) $train >&3; exec sleep 100;; esac; " +
                        until(Crew::file("first")) + "kill -KILL $$",
                    "exec sleep 100"),
            3);
  Crew::let_go("first");
  ASSERT_TRUE(std::holds_alternative<RankLost>(crew.next()));
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none = {0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const Replacement none_there = crew->replace(Crew::now());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(none_there.all);
  EXPECT_TRUE(none_there.ranks.empty());
  EXPECT_NE(none_there.all.error().message.find("Too many open files"), std::string::npos)
      << none_there.all.error().message;
  EXPECT_FALSE(crew->ended(Crew::now())) << "it is told already, and the others go on";
  EXPECT_EQ(crew->whole_again(), std::nullopt);
  const Replacement replaced = crew->replace(Crew::now());
  ASSERT_TRUE(replaced.all) << replaced.all.error().message;
  EXPECT_EQ(replaced.ranks, std::vector<int>{1});
  EXPECT_TRUE(crew.whole_again().starts_with("rank 1 is in place again, "));
}

// Whatever it says of itself, and be it a verdict: the run is the others', who go on.
TEST(WorkerCrew, ASuccessorThatEndsBeforeItIsInPlaceIsLostAsAnother) {
  for (const int status :
       {0, 1, 2, 3, static_cast<int>(kUseless), static_cast<int>(kStateLost), 127}) {
    const std::string text = std::to_string(status);
    Crew crew(by_rank("exec sleep 100",
                      "case $0 in *place*) exit " + text + ";; esac; " +
                          until(Crew::file("first")) + "kill -KILL $$",
                      "exec sleep 100"),
              3);
    Crew::let_go("first");
    ASSERT_TRUE(std::holds_alternative<RankLost>(crew.next()));
    for (int n = 0; n < 2; ++n) {
      ASSERT_TRUE(crew->replace(Crew::now()).all);
      const Event lost = crew.next();
      ASSERT_TRUE(std::holds_alternative<RankLost>(lost)) << status;
      EXPECT_EQ(std::get<RankLost>(lost).who, "rank 1 left with status " + text);
      EXPECT_TRUE(std::get<RankLost>(lost).held);
      EXPECT_TRUE(std::get<RankLost>(lost).in_vain);
    }
    // Where no other one is wanted the others are ended, and all begin again.
    crew->end_rest(Crew::now());
    const Event end = crew.next();
    ASSERT_TRUE(std::holds_alternative<Exited>(end)) << status;
    EXPECT_EQ(std::get<Exited>(end).code, status <= 2 ? static_cast<int>(kStateLost) : status);
    EXPECT_EQ(crew->cause(), "rank 1 left with status " + text);
  }
}

TEST(WorkerCrew, WhoTakesAPlaceInARunThatIsOverIsEndedWithoutAWord) {
  const std::string leave = until(Crew::file("second")) + "exit 0";
  const std::string lost = until(Crew::file("first")) + "kill -KILL $$";
  Crew crew(by_rank(leave, "case $0 in *place*) exec sleep 100;; esac; " + lost, leave), 3);
  Crew::let_go("first");
  ASSERT_TRUE(std::holds_alternative<RankLost>(crew.next()));
  ASSERT_TRUE(crew->replace(Crew::now()).all);
  Crew::let_go("second");
  const Event end = crew.next();
  ASSERT_TRUE(std::holds_alternative<Exited>(end));
  EXPECT_EQ(std::get<Exited>(end).code, 0);
}

}  // namespace
}  // namespace ferry::supervisor
