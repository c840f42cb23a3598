// The built program as several processes of which one comes to a standstill, in an op, a message, a file, at a
// signal: who and in what is said within seconds, and of runs that only are slow nothing is.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "base/random.h"
#include "trains.h"

namespace {

using namespace ferry::program;

/// One thing that comes to a standstill, and what must be said of it.
struct Hang {
  std::string name;
  int ranks;
  std::string fault;        // FERRY_FAULT
  int rank;                 // to blame
  std::string in;           // HangStatus::in; empty: not compared
  Strings says;             // of the sentence
  double seconds_max = 10;  // until it is said
  Strings settings = {};    // of the run
};

/// The hang of that number that the seed draws: past the first step, and where the same thing was done before.
Hang drawn(uint64_t seed, int number) {
  const ferry::Random random(seed, ferry::RandomPurpose::kTest, static_cast<uint64_t>(number));
  uint64_t draws = 0;
  const auto below = [&](size_t n) { return random.below(draws++, n); };
  const auto one_of = [&](std::initializer_list<const char*> names) {
    return std::string(names.begin()[below(names.size())]);
  };
  Hang h{.name = std::to_string(number),
         .ranks = 2 + static_cast<int>(below(3)),
         .settings = {"--train.evaluate_every=0", "--checkpoint.every=0"}};
  h.rank = static_cast<int>(below(static_cast<size_t>(h.ranks)));
  const size_t micro_batches = 4 / static_cast<size_t>(h.ranks);  // of a step, at least
  const auto at = [&](const std::string& point, size_t least, size_t most, const char* action) {
    h.fault = fmt::format("{}@{}:{}:{}", point, h.rank, least + below(most - least + 1), action);
  };
  const auto in_op = [&](const char* action) {
    h.in = one_of({"attention",
                   "attention_backward",
                   "swiglu",
                   "swiglu_backward",
                   "rope",
                   "rms_norm_backward",
                   "mla_expand"});
    // Of any of these there are four in a micro-batch at most.
    at(fmt::format("op.{}.{}", h.in, 1 + below(2)),
       8 * micro_batches + 1,
       12 * micro_batches,
       action);
  };
  switch (below(10)) {
    case 0:
    case 1:
    case 2: in_op("hang"); break;
    case 3:
      in_op("stop");
      h.says = {"SIGSTOP"};
      break;
    case 4:
      h.in = "adamw";
      at("op.adamw", 45, 120, "hang");
      break;
    case 5: at(one_of({"comm.send", "comm.receive"}), 150, 400, "hang"); break;
    case 6:
      at("comm.lose", 100, 300, "eio");
      h.says = {fmt::format("nothing has arrived from rank {}", h.rank)};
      break;
    case 7:
      h.in = "data";
      at("data.read", 10, 20, "hang");
      break;
    case 8:
      h.rank = 0;
      h.in = "sync";
      h.settings = {"--checkpoint.every=2", "--train.evaluate_every=0"};
      at("file.sync", 8, 14, "hang");
      break;
    default:
      at(one_of({"step.gradients", "step.sums", "step.commit", "step.spread"}), 5, 12, "hang");
  }
  return h;
}

class HangE2e : public Trains {
 protected:
  static void SetUpTestSuite() { begin_folder(memory_folder()); }

  static Strings launch(int ranks, const std::string& run, const Strings& more = {}) {
    Strings args = {"launch", "-n", std::to_string(ranks), "--"};
    for (const std::string& a : train(run, {"--train.micro_batch_tokens=64"})) args.push_back(a);
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }

  struct Said {
    nlohmann::json verdict;
    std::string log;     // what the supervisor said when it came to it
    double after_s = 0;  // since the last step was done, which is longer than since the hang
  };
  /// The verdict that a run's supervisor shows.
  static std::optional<Said> verdict_of(const std::string& run) {
    const auto status = nlohmann::json::parse(read(path(run) + "/status.json"), nullptr, false);
    if (status.is_discarded() || !status.contains("verdict")) return std::nullopt;
    Said found{.verdict = status["verdict"]};
    const std::string text = found.verdict["text"];
    const std::string head = text.substr(0, text.find(" for "));  // so many seconds
    for (const auto& said : status["said"]) {
      const std::string log = said["text"];
      if (!log.starts_with(head)) continue;
      found.log = log;
      const std::string metrics = read(path(run) + "/metrics.jsonl");
      if (const size_t last = metrics.rfind("\"unix_ms\":"); last != std::string::npos)
        found.after_s = static_cast<double>(said["unix_ms"].get<int64_t>() -
                                            std::strtoll(&metrics[last + 10], nullptr, 10)) /
                        1000;
    }
    return found;
  }
  /// Runs them, some at a time; of each the rank must be named, and what it is in, in time.
  static void expect_told(const std::vector<Hang>& hangs) {
    ASSERT_FALSE(hangs.empty());
    std::vector<double> seconds;
    int right = 0;
    for (size_t begin = 0; begin < hangs.size(); begin += 4) {  // so many at the same time
      const size_t end = std::min(hangs.size(), begin + 4);
      std::vector<std::unique_ptr<Program>> programs;
      for (size_t i = begin; i < end; ++i) {
        const Hang& h = hangs[i];
        programs.push_back(std::make_unique<Program>(root_ / ("log-" + h.name),
                                                     launch(h.ranks, h.name, h.settings),
                                                     Environment{{"FERRY_FAULT", h.fault}}));
      }
      for (size_t i = begin; i < end; ++i) {
        const Hang& h = hangs[i];
        const std::string of = h.name + " (" + h.fault + "): ";
        Program& p = *programs[i - begin];
        std::optional<Said> said;
        ASSERT_TRUE(wait_for([&] { return (said = verdict_of(h.name)) || p.ended(); })) << of;
        ASSERT_TRUE(said) << of << "ended:\n" << p.output();
        const std::string text = said->verdict["text"];
        EXPECT_TRUE(said->verdict["hangs"]) << of << text;
        EXPECT_EQ(said->verdict["rank"], h.rank) << of << text;
        if (!h.in.empty()) {
          EXPECT_EQ(said->verdict["in"], h.in) << of << text;
        }
        right += said->verdict["rank"] == h.rank && (h.in.empty() || said->verdict["in"] == h.in);
        for (const std::string& s : h.says)
          EXPECT_NE(text.find(s), std::string::npos) << of << "'" << s << "' is not in: " << text;
        EXPECT_FALSE(said->log.empty()) << of << "it is not among what was said: " << text;
        EXPECT_TRUE(wait_for([&] { return p.said(said->log); })) << of << "the log tells it, too";
        EXPECT_LT(said->after_s, h.seconds_max) << of << text;
        seconds.push_back(said->after_s);
        std::printf("%-9s %4.1f s  %s\n", h.name.c_str(), said->after_s, said->log.c_str());
      }
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf(R"({"hangs":%zu,"right":%d,"verdict_s_p50":%.1f,"verdict_s_max":%.1f})"
                "\n",
                seconds.size(),
                right,
                seconds[seconds.size() / 2],
                seconds.back());
  }
  static bool told_nothing(const std::string& output) {
    for (const char* what : {"has been in",
                             "stood still",
                             "has stopped",
                             "has waited for",
                             "nothing has arrived",
                             "have waited",
                             "is slow"})
      if (output.find(what) != std::string::npos) return false;
    return true;
  }
};

TEST_F(HangE2e, WhoHangsAndInWhatIsSaidInSeconds) {
  const std::vector<Hang> hangs = {
      {"op",
       3,
       "op.rms_norm@1:60:hang",
       1,
       "rms_norm",
       {"uses no processor", "ranks 0 and 2 wait"}},
      {"layer", 2, "op.attention.2@0:20:hang", 0, "attention", {"layer 2"}},
      {"spin",
       2,
       "op.matmul@1:200:spin",
       1,
       "matmul",
       {"has been in matmul"},
       100},  // of its own processor time
      {"update", 2, "op.adamw@1:30:hang", 1, "adamw", {"update"}},
      {"stop", 3, "op.swiglu@2:30:stop", 2, "swiglu", {"SIGSTOP", "kill -CONT"}},
      {"half", 2, "comm.send@1:300:hang", 1, "", {"while it sends to rank 0"}},
      {"receive", 2, "comm.receive@0:200:hang", 0, "", {"while it receives from rank 1"}},
      {"link", 3, "comm.lose@2:150:eio", 2, "", {"nothing has arrived from rank 2"}},
      {"data", 2, "data.read@1:20:hang", 1, "data", {"its next batch of data"}},
      {"save", 2, "file.sync@0:9:hang", 0, "sync", {"a file system", "sync of"}},
      // Of a single process: one of several also beats while it receives, as often as it has to wait.
      {"host", 1, "beat.train@0:25:hang", 0, "", {"between two ops"}},
      {"held", 2, "beat.evaluate@0:3:hang", 0, "", {"rank 1 waits"}},
      {"first", 2, "op.adamw@0:20:hang", 0, "adamw", {"after step 0"}},
      {"alone", 1, "op.permute@0:60:hang", 0, "permute", {"rank 0 has been in"}},
      {"backward",
       4,
       "op.rms_norm_backward.1@3:40:hang",
       3,
       "rms_norm_backward",
       {"backward, layer 1"}},
  };
  expect_told(hangs);
}

// `./run hangs` draws more.
TEST_F(HangE2e, WhatASeedDrawsIsSaidInSeconds) {
  const auto from_environment = [](const char* name, int otherwise) {
    const char* value = std::getenv(name);
    return value != nullptr ? std::stoi(value) : otherwise;
  };
  const int seed = from_environment("FERRY_HANGS_SEED", 1);
  std::vector<Hang> hangs;
  for (int i = 0; i < from_environment("FERRY_HANGS", 4); ++i)
    hangs.push_back(drawn(static_cast<uint64_t>(seed), i));
  expect_told(hangs);
}

// Each of its successors hangs at the same place, if it comes so far. Rank 0, who writes, is none that could not be.
TEST_F(HangE2e, WhoCannotGoOnIsEndedSoonAndItsSuccessorFinishesTheSame) {
  ran(train("undisturbed", {"--train.micro_batch_tokens=64"}));
  for (const auto& [who, fault] :
       {std::pair{"0", "step.sums@0:12:hang"}, std::pair{"1", "op.attention@1:50:stop"}}) {
    const std::string run = std::string("ended") + who, rank = std::string("rank ") + who;
    const Ended e =
        end_of(launch(2, run, {"--supervisor.hang_patience_s=4", "--checkpoint.every=1000000"}),
               {{"FERRY_FAULT", fault}});
    EXPECT_EQ(e.status, 0) << e.output;
    EXPECT_NE(e.output.find("supervisor.hang_patience_s): ending " + rank), std::string::npos)
        << e.output;
    EXPECT_NE(e.output.find(rank + " is in place again"), std::string::npos) << e.output;
    EXPECT_EQ(e.output.find("starting again"), std::string::npos) << e.output;
    expect_same(trace(run), trace("undisturbed"), run);
  }
}

TEST_F(HangE2e, ADiskThatStallsIsToldAndWaitedFor) {
  const std::string run = "stalled";
  Program p(root_ / "log-stalled",
            train(run, {"--supervisor.hang_patience_s=4"}),
            {{"FERRY_FAULT", "file.free_space:3:delay12000,file.make_folders:12:delay12000"}});
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("has waited for a file system")) << p.output();
  EXPECT_TRUE(p.said("free space of")) << p.output();
  EXPECT_TRUE(p.said("rank 0 goes on")) << p.output();
  EXPECT_FALSE(p.said("ending the worker")) << p.output();
}

TEST_F(HangE2e, WhoGoesOnIsSaidToAndHangsNoMore) {
  const std::string run = "continued";
  Program p(root_ / "log", launch(2, run), {{"FERRY_FAULT", "op.attention@1:50:stop"}});
  ASSERT_TRUE(wait_for([&] { return verdict_of(run) || p.ended(); }));
  const auto status = nlohmann::json::parse(read(path(run) + "/status.json"));
  const std::string shown = ran({"status", path(run)});
  EXPECT_NE(shown.find("hangs      a signal (SIGSTOP) has stopped rank 1"), std::string::npos)
      << shown;
  ASSERT_EQ(::kill(status["ranks"][1]["pid"].get<pid_t>(), SIGCONT), 0);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("rank 1 goes on")) << p.output();
  EXPECT_FALSE(verdict_of(run));
}

// A run that ends before the supervisor looks again.
TEST_F(HangE2e, WhoGoesOnToTheEndIsSaidToHaveGoneOn) {
  const std::string run = "last";
  Program p(root_ / "log",
            launch(2, run, {"--train.evaluate_every=0", "--checkpoint.every=0"}),
            {{"FERRY_FAULT", "step.commit@1:" + std::to_string(kSteps) + ":stop"}});
  ASSERT_TRUE(wait_for([&] { return verdict_of(run) || p.ended(); }));
  const auto status = nlohmann::json::parse(read(path(run) + "/status.json"));
  ASSERT_EQ(::kill(status["ranks"][1]["pid"].get<pid_t>(), SIGCONT), 0);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("rank 1 goes on")) << p.output();
}

TEST_F(HangE2e, EightRanksOnABusyMachineAreNotSaidToHang) {
  std::vector<std::unique_ptr<Program>> busy;
  std::vector<pid_t> loops;
  for (int i = 0; i < 6; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0)
      for (volatile bool ever = true; ever;) {
      }
    loops.push_back(pid);
  }
  const Ended e = end_of(launch(8,
                                "busy",
                                {"--train.micro_batch_tokens=64",
                                 "--train.tokens_per_step=1024",
                                 "--train.steps=60",
                                 "--train.evaluate_every=0",
                                 "--checkpoint.every=0",
                                 "--supervisor.hang_verdict_s=1"}));
  for (const pid_t pid : loops) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  EXPECT_EQ(e.status, 0) << e.output;
  // A disk of this machine that really stands still for seconds is told, and rightly.
  std::string others;
  std::istringstream lines(e.output);
  for (std::string line; std::getline(lines, line);)
    if (line.find("in the kernel, which waits for the disk") == std::string::npos)
      others += line + "\n";
  EXPECT_TRUE(told_nothing(others)) << e.output;
}

}  // namespace
