// The built program as several processes: what two or three of them train is what one trains, to the bit, whoever of
// them is killed and whenever, and whoever goes on with it; what is wrong is said once, and of whom it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "trains.h"

namespace {

using namespace ferry::program;

class LaunchE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("base", {kFour}));
    base_ = trace("base");
    ASSERT_EQ(base_.steps.size(), static_cast<size_t>(kSteps));
  }

  /// The command that trains by so many.
  static Strings launch(int ranks, const std::string& run, const Strings& more = {}) {
    Strings args = {"launch", "-n", std::to_string(ranks), "--"};
    for (const std::string& a : train(run, {kFour})) args.push_back(a);
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  /// The processes that the launcher has started, oldest first: its ranks in order.
  static std::vector<pid_t> ranks_of(const Program& launcher) {
    std::vector<pid_t> found;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator("/proc", none)) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string stat = read(entry.path() / "stat");
      const size_t end = stat.rfind(") ");
      if (end == std::string::npos || stat[end + 2] == 'Z') continue;
      if (std::stoi(stat.substr(end + 4)) == launcher.pid()) found.push_back(std::stoi(name));
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  static int steps_told(const std::string& run) {
    const std::string text = read(path(run) + "/metrics.jsonl");
    int steps = 0;
    for (size_t at = 0; (at = text.find("\"kind\":\"step\"", at)) != std::string::npos; ++at)
      ++steps;
    return steps;
  }

  static size_t times(const std::string& text, const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
    return n;
  }

  // A step of four micro-batches.
  static inline const std::string kFour = "--train.micro_batch_tokens=64";
  /// Steps that last long enough to be met in the middle.
  static inline const Environment kSlow = {{"FERRY_FAULT", "beat.train:*:delay10"}};
  inline static Trace base_;
};

TEST_F(LaunchE2e, AnyNumberOfRanksTrainsWhatOneProcessTrains) {
  for (const int ranks : {2, 3}) {
    const std::string run = "by" + std::to_string(ranks);
    const std::string said = ran(launch(ranks, run));
    expect_same(trace(run), base_, run);
    EXPECT_NE(said.find("ranks      " + std::to_string(ranks) + " processes"), std::string::npos)
        << said;
    EXPECT_EQ(times(said, "\"model_dir\""), 1u) << "one log\n" << said;
    EXPECT_EQ(times(said, "device     "), 1u) << said;
  }
}

// Rank 0, who writes, is none that could not be lost.
TEST_F(LaunchE2e, WhoeverIsKilledTheRunFinishesTheSame) {
  for (const int victim : {0, 1, 2}) {
    const std::string run = "killed" + std::to_string(victim);
    const ferry::Random random(31, ferry::RandomPurpose::kTest, static_cast<uint64_t>(victim));
    const int step = 1 + static_cast<int>(random.below(0, kSteps - 6));
    Program p(root_ / "log", launch(3, run), kSlow);
    ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= step; })) << p.output();
    sleep_ms(static_cast<int>(random.below(1, 40)));
    const std::vector<pid_t> ranks = ranks_of(p);
    ASSERT_EQ(ranks.size(), 3u) << p.output();
    ASSERT_EQ(::kill(ranks[static_cast<size_t>(victim)], SIGKILL), 0);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said("rank " + std::to_string(victim) + " was ended by signal 9")) << p.output();
    EXPECT_TRUE(p.said("starting again from the newest checkpoint")) << p.output();
    expect_same(trace(run), base_, run + " at step " + std::to_string(step));
  }
}

TEST_F(LaunchE2e, AnotherNumberOfRanksGoesOnWithTheSameBits) {
  const std::string run = "regrouped";
  const auto stop_after = [&](const Strings& args, int step) {
    Program p(root_ / "log", args, kSlow);
    EXPECT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= step; })) << p.output();
    p.signal(SIGTERM);
    EXPECT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said("stopped    after step")) << p.output();
    return p.output();
  };
  const std::string said = stop_after(launch(3, run), 3);
  EXPECT_NE(said.find(" launch -n 3 -- train "), std::string::npos) << said;
  stop_after(launch(2, run, {"--resume"}), 8);
  ran(train(run, {kFour, "--resume"}));
  expect_same(trace(run), base_, run);
}

TEST_F(LaunchE2e, HangsAndHarmedMessagesAreFoundAndNamed) {
  {
    // Once, in the process that comes to it first; its successor receives fewer before it is done.
    const std::string run = "harmed";
    Program p(root_ / "log", launch(2, run), {{"FERRY_FAULT", "comm.receive:600:eio"}});
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said("sent a message whose bytes are not those that were hashed")) << p.output();
    expect_same(trace(run), base_, run);
  }
  const std::string run = "hung";
  Program p(root_ / "log",
            launch(2,
                   run,
                   {"--supervisor.step_patience_s=3",
                    "--supervisor.evaluate_patience_s=3",
                    "--supervisor.patience_intervals=1"}),
            kSlow);
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 3; })) << p.output();
  const std::vector<pid_t> ranks = ranks_of(p);
  ASSERT_EQ(ranks.size(), 2u) << p.output();
  ASSERT_EQ(::kill(ranks[1], SIGSTOP), 0);
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("no sign of life") && p.said("a signal has stopped it")) << p.output();
  const std::string said = p.output();
  const size_t named = said.find("rank 1: training"), waits = said.find("waiting for rank 1");
  EXPECT_TRUE(named != std::string::npos && waits != std::string::npos && named < waits) << said;
  expect_same(trace(run), base_, run);
}

TEST_F(LaunchE2e, RanksDoNotOutliveTheirLauncherAndWrongInputIsSaidOnce) {
  const std::string run = "orphaned";
  Program p(root_ / "log", launch(2, run), kSlow);
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 1; })) << p.output();
  const std::vector<pid_t> ranks = ranks_of(p);
  ASSERT_EQ(ranks.size(), 2u);
  p.signal(SIGKILL);
  EXPECT_EQ(p.wait(), kKilled);
  for (const pid_t rank : ranks)
    EXPECT_TRUE(wait_for([&] {
      const std::string stat = read("/proc/" + std::to_string(rank) + "/stat");
      return stat.empty() || stat.find(") Z") != std::string::npos;
    })) << "rank "
        << rank;
  ran(launch(2, run, {"--resume"}));
  expect_same(trace(run), base_, run);
  refused(2, launch(5, "none"), {"a step has 4 micro-batches", "give -n 4 at most"});
  EXPECT_FALSE(fs::exists(path("none")));
  refused(2, {"launch", "-n", "2", "--", "rl", path("run.toml")}, {"only train runs as several"});
  refused(2, {"launch", "-n", "0", "--", "train", path("run.toml")}, {"ranks"});
  refused(2, launch(2, "none", {"--train.device=ascend"}), {"train on the cpu alone"});
  const Ended again = end_of(launch(2, "base"));
  EXPECT_EQ(again.status, 2) << again.output;
  EXPECT_EQ(times(again.output, "holds a run that got to step"), 1u) << again.output;
  const Ended no_data = end_of(launch(3, "none", {"--data.dir=" + path("nowhere")}));
  EXPECT_EQ(no_data.status, 2) << no_data.output;
  EXPECT_EQ(times(no_data.output, "ferry: "), 1u) << no_data.output;
}

}  // namespace
