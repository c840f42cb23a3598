// Several processes as one worker: whose end it was, whom silence is held against, and that none outlives another's
// failure.
#include "train/worker_crew.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
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
          .ranked = script};
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
    if (const std::optional<Event> e = crew->ended(clock.monotonic_s()))
      return {*e, crew->cause(), clock.monotonic_s() - begin};
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

/// A script that goes by the rank of its ticket. What is to be killed takes the shell's place: a child of the shell
/// would live on, and hold what the test writes to.
std::string by_rank(const std::string& zero, const std::string& one, const std::string& others) {
  return "t=$(head -1 /proc/self/fd/4); r=${t##*rank??}; case ${r%%[!0-9]*} in 0) " + zero +
         ";; 1) " + one + ";; *) " + others + ";; esac";
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

TEST(WorkerCrew, ASaveIsFinishedWhenAnotherRankDies) {
  const std::string beat = testing::TempDir() + "/ferry_saving_beat";
  for (const Work work : {Work::kWriting, Work::kTraining}) {
    const Heartbeat says{.step = 3, .work = work};
    ASSERT_TRUE(
        write_file_atomic(beat, std::string(reinterpret_cast<const char*>(&says), sizeof says)));
    // Rank 0 leaves by itself, or is ended with the others.
    const Ended e = run(by_rank("cat " + beat + " >&3; sleep 1; echo > " + beat + ".whole; exit 7",
                                "sleep 0.3; kill -KILL $$",
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

TEST(WorkerCrew, EachIsHandedItsPlaceAndTheRest) {
  const Ended e =
      run("test \"$(tail -1 /proc/self/fd/4)\" = settings && test -S /proc/self/fd/5 && exit 9", 2);
  ASSERT_TRUE(std::holds_alternative<Exited>(e.event));
  EXPECT_EQ(std::get<Exited>(e.event).code, 9);
  const Result<HandedRank> rank = rank_of_handed("{}\nall\nthe rest");
  ASSERT_TRUE(rank);
  EXPECT_EQ(rank->ticket, "{}");
  EXPECT_EQ(rank->rest, "all\nthe rest");
  EXPECT_FALSE(rank_of_handed("no place"));
}

}  // namespace
}  // namespace ferry::supervisor
