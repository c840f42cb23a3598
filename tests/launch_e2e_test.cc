// The built program as several processes: what they train is what one trains, to the bit, whoever of them is killed
// and whenever, without a checkpoint, and whoever goes on with it; what is wrong is said once, and of whom it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "on_terminal.h"
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
  static Strings launch(int ranks,
                        const std::string& run,
                        const Strings& more = {},
                        const std::string& config = "run.toml") {
    Strings args = {"launch", "-n", std::to_string(ranks), "--"};
    for (const std::string& a : train(run, {kFour}, config)) args.push_back(a);
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

  /// What would be begun anew if it could not be gone on with.
  static void expect_no_checkpoint_read(const std::string& output) {
    EXPECT_EQ(times(output, "starting again"), 0u) << output;
    EXPECT_EQ(times(output, "resume     "), 0u) << output;
  }

  /// A checkpoint is being written there.
  static bool writes_checkpoint(const std::string& run) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(path(run), none))
      if (entry.path().filename().string().starts_with(".step-")) return true;
    return false;
  }

  static inline const std::string kNoCheckpoint = "--checkpoint.every=1000000";
  // A step of four micro-batches.
  static inline const std::string kFour = "--train.micro_batch_tokens=64";
  /// Steps that last long enough to be met in the middle.
  static inline const Environment kSlow = {{"FERRY_FAULT", "beat.train:*:delay10"}};
  /// A step lasts a quarter of a second at least.
  static inline const Environment kSlower = {{"FERRY_FAULT", "step.stop:*:delay250"}};
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

// Rank 0, who writes, is none that could not be lost. The next step is done seconds after the kill.
TEST_F(LaunchE2e, WhoeverIsKilledHasASuccessorWithinSeconds) {
  for (const int victim : {0, 1, 2}) {
    const std::string run = "killed" + std::to_string(victim);
    const ferry::Random random(31, ferry::RandomPurpose::kTest, static_cast<uint64_t>(victim));
    const int step = 1 + static_cast<int>(random.below(0, kSteps - 6));
    Program p(root_ / "log", launch(3, run, {kNoCheckpoint}), kSlow);
    ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= step; })) << p.output();
    sleep_ms(static_cast<int>(random.below(1, 40)));
    const std::vector<pid_t> ranks = ranks_of(p);
    ASSERT_EQ(ranks.size(), 3u) << p.output();
    ASSERT_EQ(::kill(ranks[static_cast<size_t>(victim)], SIGKILL), 0);
    const auto killed = std::chrono::steady_clock::now();
    // What was committed by then may still come.
    ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("recovered  rank"); })) << p.output();
    const int told = steps_told(run);
    ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) > told; })) << p.output();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - killed;
    EXPECT_LT(took.count(), 5) << p.output();
    RecordProperty("seconds_to_next_step_" + std::to_string(victim), std::to_string(took.count()));
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said("rank " + std::to_string(victim) + " was ended by signal 9")) << p.output();
    EXPECT_TRUE(p.said("rank " + std::to_string(victim) + " is in place again")) << p.output();
    expect_no_checkpoint_read(p.output());
    expect_same(trace(run), base_, run + " at step " + std::to_string(step));
    const std::string status = read(path(run) + "/status.json");
    EXPECT_NE(status.find("a successor takes its place"), std::string::npos) << status;
    EXPECT_NE(status.find("is in place again"), std::string::npos) << status;
  }
}

// Each point of a step, of each place among the ranks. A successor passes its points fewer times than kills it, too.
TEST_F(LaunchE2e, AKillAnywhereInAStepIsMadeUpForByTheOthers) {
  const char* const points[] = {
      "numbers", "gradients", "sums", "commit", "committed", "spread", "spread.done", "stop"};
  int ranks = 2;
  for (const char* point : points)
    for (const bool writer : {true, false}) {
      const int victim = writer ? 0 : 1 + (ranks - 2) / 2;
      const std::string run =
          std::string(point) + std::to_string(victim) + "of" + std::to_string(ranks);
      const Ended e =
          end_of(launch(ranks, run, {kNoCheckpoint}),
                 {{"FERRY_FAULT",
                   "step." + std::string(point) + "@" + std::to_string(victim) + ":9:kill"}});
      EXPECT_EQ(e.status, 0) << run << "\n" << e.output;
      EXPECT_EQ(times(e.output, "a successor takes its place"), 1u) << run << "\n" << e.output;
      const bool forward = std::string(point).starts_with("spread") || point == points[4];
      // Whoever is left has heard that the step was committed, or has not: both may be.
      if (!forward && point != points[3]) {
        EXPECT_EQ(times(e.output, "which was committed, is finished"), 0u) << run << "\n"
                                                                           << e.output;
      }
      expect_no_checkpoint_read(e.output);
      expect_same(trace(run), base_, run);
      ranks = ranks == 4 ? 2 : ranks + 1;
    }
}

TEST_F(LaunchE2e, AKillBetweenTwoStepsIsMadeUpForByTheOthers) {
  // Every second step is saved, every fourth evaluated: again, the successor comes by less often.
  const std::pair<const char*, int> points[] = {
      {"collect", 5}, {"save", 5}, {"evaluate", 3}, {"held_out", 3}};
  for (const auto& [point, time] : points)
    for (const int victim : {0, 1}) {
      const std::string run = std::string(point) + std::to_string(victim);
      if (victim != 0 && run.starts_with("evaluate")) continue;  // rank 0's alone
      const Ended e = end_of(launch(3, run),
                             {{"FERRY_FAULT",
                               "step." + std::string(point) + "@" + std::to_string(victim) + ":" +
                                   std::to_string(time) + ":kill"}});
      EXPECT_EQ(e.status, 0) << run << "\n" << e.output;
      EXPECT_EQ(times(e.output, "was ended by signal 9"), 1u) << run << "\n" << e.output;
      expect_no_checkpoint_read(e.output);
      expect_same(trace(run), base_, run);
    }
}

TEST_F(LaunchE2e, RankZeroKilledInTheMiddleOfWritingHasASuccessorWhoWrites) {
  const std::string run = "torn";
  Program p(
      root_ / "log", launch(3, run, {kNoCheckpoint}), {{"FERRY_FAULT", "beat.save:*:delay30"}});
  // Half of the last checkpoint: the only one.
  ASSERT_TRUE(wait_for([&] { return p.ended() || writes_checkpoint(run); })) << p.output();
  const std::vector<pid_t> ranks = ranks_of(p);
  ASSERT_EQ(ranks.size(), 3u) << p.output();
  ASSERT_EQ(::kill(ranks[0], SIGKILL), 0);
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("rank 0 is in place again")) << p.output();
  expect_no_checkpoint_read(p.output());
  expect_same(trace(run), base_, run);
}

// The last checkpoint is whole, and nobody has left: rank 0's successor finds it, and says what the run came to, after
// the others have ended.
TEST_F(LaunchE2e, AKillAtTheEndChangesNothing) {
  for (const size_t victim : {0u, 1u}) {
    const std::string run = "end" + std::to_string(victim);
    Program p(root_ / "log",
              launch(3, run, {kNoCheckpoint}),
              {{"FERRY_FAULT", "step.end@0:1:delay400,step.left@0:1:delay400"}});
    ASSERT_TRUE(wait_for([&] { return p.ended() || fs::exists(checkpoint(run)); })) << p.output();
    const std::vector<pid_t> ranks = ranks_of(p);
    ASSERT_EQ(ranks.size(), 3u) << p.output();
    ASSERT_EQ(::kill(ranks[victim], SIGKILL), 0);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_EQ(times(p.output(), "\"model_dir\""), 1u) << p.output();
    expect_no_checkpoint_read(p.output());
    expect_same(trace(run), base_, run);
  }
}

TEST_F(LaunchE2e, TwoRanksLostAtOnceAreMadeUpForUnlessOneHeldWhatTheOtherDid) {
  const struct {
    const char* name;
    const char* faults;
    bool held;
  } cases[] = {
      {"apart", "step.spread@1:9:kill,step.spread@3:9:kill", true},
      {"apart0", "step.commit@0:9:kill,step.gradients@2:9:kill", true},
      // Rank 1's successors die again and again, and rank 3 while it gives them what they need.
      {"again", "step.commit@1:6:kill,step.give@3:2:kill", true},
      {"neighbours", "step.committed@1:9:kill,step.committed@2:9:kill", false},
  };
  for (const auto& c : cases) {
    // What is begun again begins behind half of the steps, so that it does not come by the faults a second time.
    const Ended e = end_of(launch(4, c.name, {c.held ? kNoCheckpoint : "--checkpoint.every=2"}),
                           {{"FERRY_FAULT", c.faults}});
    EXPECT_EQ(e.status, 0) << e.output;
    if (c.held)
      expect_no_checkpoint_read(e.output);
    else
      EXPECT_TRUE(e.output.find("nobody holds who is left") != std::string::npos &&
                  e.output.find("starting again from the newest checkpoint") != std::string::npos)
          << e.output;
    expect_same(trace(c.name), base_, c.name);
  }
}

// As many micro-batches as let nine share them unevenly.
TEST_F(LaunchE2e, NineRanksOfWhichThreeAreLostTrainTheSame) {
  const Strings many = {"--train.micro_batch_tokens=64",
                        "--train.tokens_per_step=704",
                        "--train.steps=8",
                        "--data.sequence_length=64",
                        kNoCheckpoint};
  ran(train("base9", many));
  const Trace base = trace("base9", 8);
  Strings args = launch(9, "by9");
  args.insert(args.end(), many.begin(), many.end());
  const Ended e = end_of(
      args, {{"FERRY_FAULT", "step.spread@0:5:kill,step.committed@4:5:kill,step.commit@7:5:kill"}});
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_TRUE(e.output.find("is in place again") != std::string::npos ||
              e.output.find("are in place again") != std::string::npos)
      << e.output;
  expect_no_checkpoint_read(e.output);
  expect_same(trace("by9", 8), base, "by9");
}

// Texts and shape come from the others; what an adapter goes with is read again.
TEST_F(LaunchE2e, SuccessorsInRunsThatBeganFromAModelTrainTheSame) {
  ran({"convert", checkpoint("base"), "--to", "f32", "--out", path("init")});
  write(root_ / "init.toml", kRun);
  const Strings init = {"--model.init=" + path("init"), kNoCheckpoint};
  Strings lora = init;
  for (const char* a :
       {"--lora.rank=4", "--lora.target_modules=q_proj, kv_b_proj", "--optimizer.lr=0.02"})
    lora.emplace_back(a);
  for (const auto& [name, more] : {std::pair<std::string, Strings>{"init", init}, {"lora", lora}}) {
    const auto left_by = [](const std::string& run) {
      std::map<std::string, std::string> files;
      for (const auto& entry : fs::directory_iterator(checkpoint(run))) {
        const std::string file = entry.path().filename().string();
        // Signed, and with the hash of the state's document, which has the time that it took.
        if (entry.is_regular_file() && file != "passport.json" && file != "checksums.json" &&
            file != "verified.json")
          files[file] = read(entry.path());
      }
      files["state"] = read(checkpoint(run) + "/state/part-00000.safetensors");
      return files;
    };
    Strings alone = {kFour};
    alone.insert(alone.end(), more.begin(), more.end());
    ran(train(name + "_alone", alone, "init.toml"));
    const std::map<std::string, std::string> expected = left_by(name + "_alone");
    EXPECT_GE(expected.size(), 3u);
    for (const int victim : {0, 1}) {
      const std::string run = name + "_killed" + std::to_string(victim);
      const Ended e =
          end_of(launch(3, run, more, "init.toml"),
                 {{"FERRY_FAULT", "step.commit@" + std::to_string(victim) + ":9:kill"}});
      EXPECT_EQ(e.status, 0) << run << "\n" << e.output;
      EXPECT_EQ(times(e.output, "in place again, with"), 1u) << run << "\n" << e.output;
      expect_no_checkpoint_read(e.output);
      const std::map<std::string, std::string> left = left_by(run);
      EXPECT_EQ(left.size(), expected.size()) << run;
      for (const auto& [file, bytes] : expected)
        EXPECT_TRUE(left.contains(file) && left.at(file) == bytes) << run << ": another " << file;
    }
  }
}

// That there was an evaluation its successor must know as well, or it makes one that nobody else does.
TEST_F(LaunchE2e, AnEvaluationThatFoundNoNumberIsKnownToASuccessor) {
  // Weights whose products are beyond what a float holds: every update is refused.
  ran({"convert", checkpoint("base"), "--to", "f32", "--out", path("huge")});
  for (const char* name : {"passport.json", "checksums.json"})
    fs::remove(path("huge") + "/" + name);
  const std::string weights = path("huge") + "/model.safetensors";
  std::string bytes = read(weights);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const float huge = 1e18F;
  for (size_t at = sizeof header + header; at < bytes.size(); at += sizeof huge)
    std::memcpy(bytes.data() + at, &huge, sizeof huge);
  write(weights, bytes);
  write(root_ / "init.toml", kRun);
  // A rank is lost in the step after each evaluation.
  const Ended e =
      end_of(launch(2, "wild", {kNoCheckpoint, "--model.init=" + path("huge")}, "init.toml"),
             {{"FERRY_FAULT", "step.numbers@1:5:kill"}});
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_NE(e.output.find("nan bits per byte"), std::string::npos) << e.output;
  EXPECT_EQ(times(e.output, "in place again, with"), 3u) << e.output;
  EXPECT_NE(e.output.find("each of the 16 updates was refused"), std::string::npos) << e.output;
  expect_no_checkpoint_read(e.output);
}

TEST_F(LaunchE2e, AnEvaluationThatCameWithACheckpointIsKnownToASuccessor) {
  const std::string run = "evaluated", every = "--checkpoint.every=4";
  {
    Program p(root_ / "log", launch(2, run, {every}), kSlow);
    ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint(run); })) << p.output();
    p.signal(SIGKILL);
    ASSERT_EQ(p.wait(), kKilled) << p.output();
  }
  // Each stands still in its first step.
  Program p(root_ / "log",
            launch(2, run, {every, "--resume"}),
            {{"FERRY_FAULT", "step.gradients@1:1:stop"}});
  const auto one_stands_still = [&] {
    for (const pid_t rank : ranks_of(p))
      if (stands_still(rank)) return rank;
    return pid_t{0};
  };
  ASSERT_TRUE(wait_for([&] { return p.ended() || one_stands_still() != 0; })) << p.output();
  ASSERT_FALSE(p.ended()) << p.output();
  ASSERT_EQ(::kill(one_stands_still(), SIGKILL), 0);
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("recovered  rank 1"); })) << p.output();
  ASSERT_TRUE(wait_for([&] { return p.ended() || one_stands_still() != 0; })) << p.output();
  ASSERT_FALSE(p.ended()) << p.output();
  ASSERT_EQ(::kill(one_stands_still(), SIGCONT), 0);
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_FALSE(p.said("starting again")) << p.output();
  expect_same(trace(run), base_, run);
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

// All who were told to stop are lost before they could agree on it.
TEST_F(LaunchE2e, AStopIsKnownToSuccessors) {
  const std::string run = "stopping";
  Program p(root_ / "log",
            launch(2, run, {kNoCheckpoint, "--train.steps=100000"}),
            {{"FERRY_FAULT", "step.stop@0:9:delay2000,step.stop@0:10:delay3000"}});
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 8; })) << p.output();
  p.signal(SIGTERM);
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("saves and leaves"); })) << p.output();
  for (const size_t rank : {1u, 0u}) {
    const std::vector<pid_t> ranks = ranks_of(p);
    ASSERT_EQ(ranks.size(), 2u) << p.output();
    const std::string back = "rank " + std::to_string(rank) + " is in place again";
    ASSERT_EQ(::kill(rank == 1 ? ranks[1] : ranks[0], SIGKILL), 0);
    ASSERT_TRUE(wait_for([&] { return p.ended() || p.said(back); })) << p.output();
  }
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("stopped    after step")) << p.output();
}

// Rank 0 alone knows that the last checkpoint was left out; all of them save it, or are told that it cannot be.
TEST_F(LaunchE2e, AStopBehindACheckpointThatWasLeftOut) {
  std::string faults = "step.stop@0:*:delay200";
  for (int n = 2; n < 200; ++n) faults += ",file.no_room@0:" + std::to_string(n) + ":enospc";
  Program p(root_ / "log",
            launch(2, "left_out", {"--checkpoint.every=1", "--train.steps=100000"}),
            {{"FERRY_FAULT", faults}});
  ASSERT_TRUE(wait_for([&] {
    return p.ended() || p.said("tries again when the next checkpoint is due");
  })) << p.output();
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 3) << p.output();
  EXPECT_TRUE(p.said("could not write before it had saved")) << p.output();
  EXPECT_FALSE(p.said("takes its place")) << p.output();
}

// A signal that only one of them gets: whoever stops a run reaches its launcher.
TEST_F(LaunchE2e, ARankThatAloneIsToldToStopGoesOn) {
  const std::string run = "asked";
  Program p(root_ / "log", launch(2, run, {kNoCheckpoint}), kSlower);
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 2; })) << p.output();
  std::vector<pid_t> ranks = ranks_of(p);
  ASSERT_EQ(ranks.size(), 2u) << p.output();
  for (const pid_t rank : ranks) ASSERT_EQ(::kill(rank, SIGTERM), 0);
  ASSERT_EQ(p.wait(), 0) << p.output();
  for (const std::string who : {"rank 0: ", "rank 1: "})
    EXPECT_TRUE(p.said(who + "SIGTERM was sent to this process alone, which goes on"))
        << p.output();
  EXPECT_FALSE(p.said("stopped    after step")) << p.output();
  EXPECT_FALSE(p.said("takes its place")) << p.output();
  expect_same(trace(run), base_, run);
}

// What it says waits for its reader; the rank does not.
TEST_F(LaunchE2e, ARankThatNobodyListensToGoesOn) {
  const std::string run = "unheard";
  const Strings patience = {"--supervisor.step_patience_s=4", "--supervisor.patience_intervals=1"};
  OnTerminal p(launch(2, run, patience), {.environment = kSlower});
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 2; })) << p.output();
  p.type("\x13");  // Ctrl-S
  ASSERT_EQ(::kill(worker_of(path(run)), SIGTERM), 0) << p.output();
  EXPECT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= kSteps; })) << p.output();
  p.type("\x11");  // Ctrl-Q
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("rank 0: SIGTERM was sent to this process alone")) << p.output();
  EXPECT_FALSE(p.said("no sign of life")) << p.output();
  expect_same(trace(run), base_, run);
}

// As systemd and Slurm do, ranks first: what the launcher sends comes while they have yet to see it.
TEST_F(LaunchE2e, AStopThatReachesEachProcessIsOne) {
  const std::string run = "all_asked";
  Program p(root_ / "log", launch(2, run, {kNoCheckpoint, "--train.steps=100000"}), kSlow);
  ASSERT_TRUE(wait_for([&] { return p.ended() || steps_told(run) >= 2; })) << p.output();
  const std::vector<pid_t> ranks = ranks_of(p);
  ASSERT_EQ(ranks.size(), 2u) << p.output();
  for (const pid_t rank : ranks) {
    ASSERT_EQ(::kill(rank, SIGSTOP), 0);
    ASSERT_TRUE(wait_for([&] { return stands_still(rank); })) << p.output();
    ASSERT_EQ(::kill(rank, SIGTERM), 0);
  }
  p.signal(SIGTERM);
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("saves and leaves"); })) << p.output();
  for (const pid_t rank : ranks) ASSERT_EQ(::kill(rank, SIGCONT), 0);
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("stopped    after step")) << p.output();
  EXPECT_FALSE(p.said("SIGTERM was sent to this process alone")) << p.output();
  EXPECT_TRUE(has_checkpoint(run)) << p.output();
}

// Rank 0 has saved, and its launcher waits for the other no longer than for one that has nothing to save.
TEST_F(LaunchE2e, OneThatIsStoppedAtTheEndHoldsNobodyUp) {
  const std::string run = "stopped_at_the_end";
  Program p(root_ / "log", launch(2, run, {kNoCheckpoint}), {{"FERRY_FAULT", "step.end@1:1:stop"}});
  const int status = p.wait();
  EXPECT_EQ(status, 0) << p.output();
  EXPECT_TRUE(p.said("a signal (SIGSTOP) has stopped rank 1")) << p.output();
  EXPECT_TRUE(p.said("rank 1 had not left 10.0 s after rank 0, which is through, and is ended"))
      << p.output();
  expect_same(trace(run), base_, run);
}

// The one that was to save the figure beside the weights is gone; who is left knows it.
TEST_F(LaunchE2e, AnEvaluationMadeUpLaterReachesItsCheckpointThoughRankZeroIsLost) {
  const std::string run = "figure";
  const Strings settings = {
      "--checkpoint.every=4", "--checkpoint.keep_last=100", "--train.evaluate_every=1000000"};
  {
    Program p(root_ / "log", launch(2, run, settings), kSlower);
    ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint(run); })) << p.output();
    p.signal(SIGKILL);
    ASSERT_EQ(p.wait(), kKilled) << p.output();
  }
  Strings more = settings;
  more.back() = "--train.evaluate_every=4";
  more.emplace_back("--resume");
  // Rank 0 and its successor stand still when they are about to save for the first time.
  Program p(root_ / "log", launch(2, run, more), {{"FERRY_FAULT", "step.save@0:1:stop"}});
  const auto one_stands_still = [&] {
    for (const pid_t rank : ranks_of(p))
      if (stands_still(rank)) return rank;
    return pid_t{0};
  };
  for (const int signal : {SIGKILL, SIGCONT}) {
    ASSERT_TRUE(wait_for([&] { return p.ended() || one_stands_still() != 0; })) << p.output();
    const pid_t rank = one_stands_still();
    ASSERT_NE(rank, 0) << p.output();
    ASSERT_EQ(::kill(rank, signal), 0);
    ASSERT_TRUE(wait_for([&] { return p.ended() || one_stands_still() != rank; })) << p.output();
  }
  ASSERT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("rank 0 is in place again")) << p.output();
  EXPECT_FALSE(p.said("starting again")) << p.output();
  EXPECT_NE(read(checkpoint(run, 4) + "/state/state.json").find("held_out_loss"), std::string::npos)
      << p.output();
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
  EXPECT_TRUE(p.said("ending rank 1") && p.said("rank 1 is in place again")) << said;
  expect_no_checkpoint_read(said);
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
