// The built program where the loss spikes: over garbage in the data, over labels, weights and sums that are spoiled.
// It refuses, goes back and goes on, and says so; and whoever is stopped or killed on the way, and however many
// processes there are, it comes to the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/random.h"
#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr int kLong = 150;

/// The place of a token that is in no text, many times: what a file that is none looks like in a dataset.
std::string garbage_line(uint64_t seed) {
  const ferry::Random random(seed, ferry::RandomPurpose::kTest, 99);
  std::string line;
  for (uint64_t i = 0; i < 2000; ++i)
    line += static_cast<char>('A' + static_cast<int>(random.below(i, 26)));
  return line + "\n";
}

class SpikeE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    // An epoch that is about as long as the run, with garbage in it.
    std::istringstream lines(generated_text(1));
    std::string text, line;
    for (int i = 0; i < 400 && std::getline(lines, line); ++i) text += line + "\n";
    for (uint64_t g = 0; g < 2; ++g) text += garbage_line(g);
    write(path("bad.txt"), text);
    ran({"data",
         "prepare",
         path("bad.txt"),
         "--split",
         "line",
         "--tokenizer",
         path("tok.json"),
         "--out",
         path("bad"),
         "--held-out-bytes",
         "2K"});
    ran(spiking("base"));
    base_ = trace("base", kLong);
  }

  /// A run of good text that goes back from spikes.
  static Strings ladder(const std::string& run, const Strings& more = {}) {
    Strings args = train(run,
                         {"--train.steps=" + std::to_string(kLong),
                          "--train.micro_batch_tokens=64",
                          "--train.evaluate_every=50",
                          "--log.every=50",
                          "--optimizer.lr=1e-2",
                          "--train.seed=3",
                          "--checkpoint.every=25",
                          "--train.rewind_every=10",
                          "--train.rewind_after=3",
                          "--train.rewind_loss_z=2"});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  /// The same with garbage in the text.
  static Strings spiking(const std::string& run, const Strings& more = {}) {
    Strings args = ladder(run, {"--data.dir=" + path("bad")});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static Strings launched(int ranks, const Strings& args) {
    Strings all = {"launch", "-n", std::to_string(ranks), "--"};
    all.insert(all.end(), args.begin(), args.end());
    return all;
  }

  static std::vector<Json> records(const std::string& file) {
    std::vector<Json> all;
    std::istringstream lines(read(file));
    // The last one may be half there, while the run goes on.
    for (std::string line; std::getline(lines, line);)
      if (Json j = Json::parse(line, nullptr, false); j.is_object()) all.push_back(std::move(j));
    return all;
  }
  static std::vector<Json> steps_of(const std::string& run) {
    std::vector<Json> steps;
    for (Json& j : records(path(run) + "/metrics.jsonl"))
      if (j.at("kind") == "step") steps.push_back(std::move(j));
    return steps;
  }
  static size_t times(const std::string& text, const std::string& what) {
    size_t n = 0;
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
    return n;
  }
  /// A point of `point` in each of these steps, of so many passes each, that "fails".
  static Environment spoiled(const std::string& point, int first, int last, int passes = 1) {
    std::string list;
    for (int p = (first - 1) * passes + 1; p <= last * passes; ++p)
      list += (list.empty() ? "" : ",") + point + ":" + std::to_string(p) + ":eio";
    return {{"FERRY_FAULT", list}};
  }

  inline static Trace base_;
};

TEST_F(SpikeE2e, GarbageInTheDataIsGoneBackFromAndSkipped) {
  const std::vector<Json> steps = steps_of("base");
  ASSERT_EQ(steps.size(), static_cast<size_t>(kLong));
  const Json last = steps.back();
  ASSERT_GE(last.value("rewinds", 0.0), 2) << last;
  // Steps are of one size: what is skipped is what the undone ones took.
  const std::vector<Json> undone = records(path("base") + "/metrics.undone.jsonl");
  ASSERT_GE(undone.size(), 3u);
  EXPECT_EQ(last["skipped_tokens"], 256 * static_cast<int>(undone.size()));
  EXPECT_EQ(last["tokens"], 256 * kLong);
  for (const Json& j : {undone[undone.size() - 1], undone[undone.size() - 2]})
    EXPECT_GT(j["loss"], 3) << j;
  const Json passport = Json::parse(read(checkpoint("base", kLong) + "/passport.json"));
  const Json& training = passport["statement"]["training"];
  EXPECT_EQ(training["tokens"], 256 * kLong);
  EXPECT_EQ(training["skipped_tokens"], last["skipped_tokens"]);
  const std::string said = ran(spiking("told"));
  EXPECT_EQ(times(said, "rewind     step "), last["rewinds"].get<size_t>()) << said;
  EXPECT_NE(said.find("\"skipped_tokens\""), std::string::npos) << said;
  expect_same(trace("told", kLong), base_, "again");
}

TEST_F(SpikeE2e, WithoutTheSettingNothingIsGoneBackFrom) {
  const std::string said = ran(spiking("off", {"--train.rewind_every=0"}));
  EXPECT_EQ(times(said, "rewind "), 0u) << said;
  EXPECT_FALSE(steps_of("off").back().contains("rewinds"));
  EXPECT_FALSE(fs::exists(path("off") + "/metrics.undone.jsonl"));
  // And a run that meets no spike is the run that could not have gone back.
  ran(ladder("calm"));
  ran(ladder("calm_off", {"--train.rewind_every=0"}));
  expect_same(trace("calm", kLong), trace("calm_off", kLong), "calm");
}

TEST_F(SpikeE2e, AnyNumberOfRanksGoesBackAlike) {
  for (const int ranks : {2, 3}) {
    const std::string run = "by" + std::to_string(ranks);
    const std::string said = ran(launched(ranks, spiking(run)));
    EXPECT_NE(said.find("rewind     step "), std::string::npos) << said;
    expect_same(trace(run, kLong), base_, run);
  }
}

// Wherever a rank is lost between the spike and the first step behind it; the second time, when its successor will be
// there for the first.
TEST_F(SpikeE2e, ARankThatIsKilledWhereAllGoBackIsMadeUpFor) {
  for (const char* const point : {"rewind", "rewound", "restored"})
    for (const int victim : {0, 1, 2}) {
      const std::string run = point + std::to_string(victim);
      const Ended e =
          end_of(launched(3, spiking(run)),
                 {{"FERRY_FAULT",
                   "step." + std::string(point) + "@" + std::to_string(victim) + ":2:kill"}});
      EXPECT_EQ(e.status, 0) << run << "\n" << e.output;
      EXPECT_GE(times(e.output, "was ended by signal 9"), 1u) << run << "\n" << e.output;
      EXPECT_EQ(times(e.output, "starting again"), 0u) << run << "\n" << e.output;
      expect_same(trace(run, kLong), base_, run);
    }
}

// While it reads what it goes back to, and just behind it, when nothing of it is saved yet.
TEST_F(SpikeE2e, AProcessThatIsKilledWhileItGoesBackGoesBackAgain) {
  const int spike = records(path("base") + "/metrics.undone.jsonl").front()["step"].get<int>();
  for (const bool behind : {false, true}) {
    const std::string run = behind ? "killed_behind" : "killed_in_it";
    Program p(root_ / "log",
              spiking(run),
              {{"FERRY_FAULT", "step.restored:*:delay300,beat.train:*:delay10"}});
    ASSERT_TRUE(wait_for([&] {
      return p.ended() || (behind ? p.said("rewind     step ")
                                  : steps_of(run).size() >= static_cast<size_t>(spike) + 2);
    })) << p.output();
    sleep_ms(100);
    const pid_t worker = worker_of(path(run));
    ASSERT_GT(worker, 0);
    ASSERT_EQ(::kill(worker, SIGKILL), 0);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said("starting again from the newest checkpoint")) << p.output();
    expect_same(trace(run, kLong), base_, run);
  }
}

// What a stop saves lies between the places to go back to: it must not become one.
TEST_F(SpikeE2e, AStoppedRunThatGoesOnGoesBackToWhereItWouldHave) {
  const int spike = records(path("base") + "/metrics.undone.jsonl").front()["step"].get<int>();
  for (const int stop : {spike - 1, spike, spike + 1, spike + 2}) {
    const std::string run = "stopped" + std::to_string(stop);
    {
      Program p(root_ / "log", spiking(run), {{"FERRY_FAULT", "beat.train:*:delay10"}});
      ASSERT_TRUE(wait_for([&] {
        return p.ended() || steps_of(run).size() >= static_cast<size_t>(stop);
      })) << p.output();
      p.signal(SIGTERM);
      ASSERT_EQ(p.wait(), 0) << p.output();
    }
    ran(spiking(run, {"--resume"}));
    expect_same(trace(run, kLong), base_, run);
  }
}

TEST_F(SpikeE2e, ASpikeThatComesAgainAndAgainEndsTheRun) {
  const Ended e =
      end_of(ladder("again", {"--train.rewinds=2"}), spoiled("spoil.loss", 61, 2 * kLong));
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_EQ(times(e.output, "back to step 60"), 3u) << e.output;  // twice done, and in the end told
  EXPECT_NE(e.output.find("gone back to step 60 2 times"), std::string::npos) << e.output;
  EXPECT_NE(e.output.find("go on with --resume"), std::string::npos) << e.output;
  // Nothing is lost that was good.
  ran(ladder("again", {"--resume"}));
}

TEST_F(SpikeE2e, WithoutACheckpointFromBeforeItIsTold) {
  const Ended e = end_of(ladder("early"), spoiled("spoil.loss", 2, 5));
  EXPECT_EQ(e.status, 0) << e.output;
  EXPECT_EQ(times(e.output, "there is no checkpoint from before"), 1u) << e.output;
  EXPECT_EQ(times(e.output, "rewind     "), 0u) << e.output;
}

// Whatever it is, wherever and for how long: the run goes on to its end, tells, and has learnt.
TEST_F(SpikeE2e, EachSeededSpikeEndsInARunThatGoesOn) {
  const double calm = [&] {
    ran(ladder("unspoiled"));
    return steps_of("unspoiled").back()["loss"].get<double>();
  }();
  for (uint64_t seed = 0; seed < 12; ++seed) {
    const ferry::Random random(seed, ferry::RandomPurpose::kTest, 8);
    const int first = 50 + static_cast<int>(random.below(0, 60));
    const int last = first + static_cast<int>(random.below(1, 5));
    const int kind = static_cast<int>(seed % 3), ranks = 1 + static_cast<int>(random.below(2, 2));
    const Environment fault = kind == 0   ? spoiled("spoil.loss", first, last)
                              : kind == 1 ? spoiled("spoil.labels", first, last, 4)
                                          : spoiled("spoil.weights", first, first);
    const std::string run = "seed" + std::to_string(seed);
    const Strings args = ladder(run);
    const Ended e = end_of(ranks == 1 ? args : launched(ranks, args), fault);
    ASSERT_EQ(e.status, 0) << "seed " << seed << ": " << fault.begin()->second << "\n" << e.output;
    const bool told = e.output.find("update refused") != std::string::npos ||
                      e.output.find("rewind     ") != std::string::npos;
    // Bad labels for a step or two are learnt from: the run goes on by itself.
    if (kind != 1 || last - first >= 2) {
      EXPECT_TRUE(told) << "seed " << seed << "\n" << e.output;
    }
    const std::vector<Json> steps = steps_of(run);
    ASSERT_EQ(steps.size(), static_cast<size_t>(kLong)) << "seed " << seed;
    EXPECT_LT(steps.back()["loss"].get<double>(), calm + 0.5) << "seed " << seed << "\n"
                                                              << e.output;
  }
}

// What V4 does behind a spike: for some steps the experts are those that the weights of one step before chose.
TEST_F(SpikeE2e, BehindASpikeTokensGoToTheExpertsThatOlderWeightsChose) {
  const Strings more = {"--train.anticipatory_steps=12"};
  const std::string said = ran(spiking("older", more));
  EXPECT_NE(said.find("anticipate "), std::string::npos) << said;
  int rewinds = 0, first = 0, anticipated = 0;  // the first step behind the last place gone back to
  for (const Json& j : steps_of("older")) {
    const int step = j["step"];
    if (j.value("rewinds", 0) > rewinds) {
      rewinds = j["rewinds"];
      first = step;
    }
    const bool of_older = rewinds > 0 && step > first && step <= first + 12;
    EXPECT_EQ(j.contains("anticipated"), of_older) << j;
    anticipated += of_older;
    const TracedStep& base = base_.steps.at(step);
    if (rewinds == 0) {
      EXPECT_EQ(j["loss"], base.loss) << step;
    }
  }
  EXPECT_GE(anticipated, 12);
  const Trace older = trace("older", kLong);
  EXPECT_NE(older.weights, base_.weights);
  // What was chosen before a stop is what is gone on with.
  Program p(
      root_ / "log", spiking("older_stopped", more), {{"FERRY_FAULT", "beat.train:*:delay10"}});
  ASSERT_TRUE(wait_for([&] {
    const std::vector<Json> steps = steps_of("older_stopped");
    return p.ended() || (!steps.empty() && steps.back().contains("anticipated"));
  })) << p.output();
  p.signal(SIGTERM);
  ASSERT_EQ(p.wait(), 0) << p.output();
  Strings resumed = more;
  resumed.emplace_back("--resume");
  ran(spiking("older_stopped", resumed));
  expect_same(trace("older_stopped", kLong), older, "stopped");
  refused(
      2, launched(2, spiking("older_by2", more)), {"train.anticipatory_steps", "leave launch out"});
  refused(2,
          spiking("older_off", {"--train.rewind_every=0", "--train.anticipatory_steps=12"}),
          {"train.anticipatory_steps", "train.rewind_every is 0"});
}

}  // namespace
