// The built program where the loss spikes: over garbage in the data, over labels, weights and sums that are spoiled.
// It refuses, goes back and goes on, and says so; and whoever is stopped or killed on the way, and however many
// processes there are, it comes to the same bits.
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>
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

  /// What a run has set aside: the time that it was, and the step; by that order.
  static std::vector<std::pair<int, int>> aside(const std::string& run) {
    std::vector<std::pair<int, int>> all;
    for (const auto& entry : fs::directory_iterator(path(run) + "/undone")) {
      const std::string name = entry.path().filename();  // step-00000030.1
      all.emplace_back(std::stoi(name.substr(name.find('.') + 1)), std::stoi(name.substr(5)));
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  /// The first and the last step of each part of the run that was undone.
  static std::vector<std::pair<int, int>> undone_parts() {
    std::vector<std::pair<int, int>> parts;
    for (const Json& j : records(path("base") + "/metrics.undone.jsonl")) {
      const int step = j["step"];
      if (parts.empty() || step <= parts.back().second) parts.emplace_back(step, step);
      parts.back().second = step;
    }
    return parts;
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

// The place that a run goes back to is kept, however few are, and those of undone steps are set aside, each whole.
TEST_F(SpikeE2e, NothingIsRemovedByGoingBack) {
  const Strings more = {"--checkpoint.every=1", "--checkpoint.keep_best=false"};
  for (const int keep : {1, 3}) {
    const std::string run = "keeps" + std::to_string(keep);
    Strings args = more;
    args.push_back("--checkpoint.keep_last=" + std::to_string(keep));
    const std::string said = ran(spiking(run, args));
    expect_same(trace(run, kLong), base_, run);
    EXPECT_EQ(times(said, "undone     "), times(said, "rewind     step ")) << said;
    const std::string first =
        keep == 1 ? "undone     1 checkpoint is in " : "undone     3 checkpoints are in ";
    EXPECT_GE(times(said, first), 1u) << said;
    // As many as of the run itself, of those that were set aside last. After the last step of a part none is saved: the
    // run goes back first.
    std::vector<std::pair<int, int>> last;
    const auto parts = undone_parts();
    for (size_t n = 0; n < parts.size(); ++n)
      for (int s = std::max(parts[n].first, parts[n].second - keep); s < parts[n].second; ++s)
        last.emplace_back(static_cast<int>(n) + 1, s);
    ASSERT_GT(last.size(), static_cast<size_t>(keep));
    last.erase(last.begin(), last.end() - keep);
    EXPECT_EQ(aside(run), last) << said;
    EXPECT_GE(times(said, "removed    "), 1u) << said;
    write(path("ids"), "1 2 3 4 5\n");
    for (const auto& entry : fs::directory_iterator(path(run) + "/undone"))
      ran({"logits", entry.path(), "--tokens", path("ids"), "--out", path("logits")});
    const std::string status = ran({"status", path(run)});
    EXPECT_NE(status.find("of step " + std::to_string(kLong)), std::string::npos) << status;
  }
}

// Another run's are not a new one's to remove, nor to add to.
TEST_F(SpikeE2e, ANewRunLeavesAloneWhatAnotherOneHasSetAside) {
  const Strings often = {"--checkpoint.every=1"};
  ran(spiking("left", often));
  std::vector<std::string> away;
  for (const auto& entry : fs::directory_iterator(path("left")))
    if (entry.path().filename().string().starts_with("step-")) away.push_back(entry.path());
  for (const std::string& each : away) fs::remove_all(each);
  const auto aside = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path("left") + "/undone"))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  };
  const std::vector<std::string> before = aside();
  ASSERT_FALSE(before.empty());
  for (const bool resume : {false, true}) {
    Strings more = often;
    if (resume) more.emplace_back("--resume");
    const Ended e = end_of(spiking("left", more));
    EXPECT_EQ(e.status, 2) << e.output;
    EXPECT_NE(e.output.find("holds checkpoints that another run has set aside"), std::string::npos)
        << e.output;
  }
  EXPECT_EQ(aside(), before);
  fs::rename(path("left") + "/undone", path("undone_elsewhere"));
  ran(spiking("left", often));
}

// Before each of the three that it sets aside, and the next time: what is left is a run that goes back once more.
TEST_F(SpikeE2e, WhoIsKilledWhileItSetsCheckpointsAsideGoesBackAgain) {
  for (const int n : {1, 2, 3, 5}) {
    const std::string run = "aside" + std::to_string(n);
    Strings args = {"--checkpoint.every=1", "--checkpoint.keep_last=4", "--worker"};
    const Ended e =
        end_of(spiking(run, args), {{"FERRY_FAULT", "undone.move:" + std::to_string(n) + ":kill"}});
    ASSERT_EQ(e.status, kKilled) << e.output;
    args.emplace_back("--resume");
    ran(spiking(run, args));
    expect_same(trace(run, kLong), base_, run);
  }
}

/// So many passes of a point, from the first one on, that fail.
std::string failing(const std::string& point, int passes, const char* action) {
  std::string list;
  for (int n = 1; n <= passes; ++n)
    list += (list.empty() ? "" : ",") + point + ":" + std::to_string(n) + ":" + action;
  return list;
}

// A disk that is full, or lets nothing be moved, ends no run that goes back: the records come later.
TEST_F(SpikeE2e, AFullDiskEndsNoRunThatGoesBack) {
  const std::string faults =
      failing("metrics.forget", 3, "enospc") + "," + failing("undone.move", 2, "eio");
  const Ended e = end_of(spiking("full", {"--checkpoint.every=1"}), {{"FERRY_FAULT", faults}});
  ASSERT_EQ(e.status, 0) << e.output;
  EXPECT_NE(e.output.find("what the run reports cannot be written"), std::string::npos) << e.output;
  EXPECT_NE(e.output.find("is written again, and all of it"), std::string::npos) << e.output;
  EXPECT_EQ(times(e.output, "are not set aside yet"), 2u) << e.output;
  EXPECT_EQ(times(e.output, "starting again"), 0u) << e.output;
  expect_same(trace("full", kLong), base_, "full");
  const auto losses = [&](const std::string& run) {
    std::vector<std::pair<int, double>> all;
    for (const Json& j : records(path(run) + "/metrics.undone.jsonl"))
      all.emplace_back(j["step"].get<int>(), j["loss"].get<double>());
    return all;
  };
  EXPECT_EQ(losses("full"), losses("base"));
}

// Moving is tried again before each save, by which there are checkpoints of the same steps that are the run's own.
TEST_F(SpikeE2e, OnlyWhatIsUndoneIsSetAsideLater) {
  const std::string run = "later";
  const std::string said = ran(spiking(run, {"--checkpoint.every=1", "--checkpoint.keep_last=9"}),
                               {{"FERRY_FAULT", failing("undone.move", 2, "eio")}});
  EXPECT_EQ(times(said, "are not set aside yet"), 2u) << said;
  expect_same(trace(run, kLong), base_, run);
  // When the run goes back and before its next save nothing could be moved: by then that step's is its own.
  std::vector<std::pair<int, int>> undone;
  const auto parts = undone_parts();
  for (size_t n = 0; n < parts.size(); ++n)
    for (int s = parts[n].first + (n == 0 ? 1 : 0); s < parts[n].second; ++s)
      undone.emplace_back(static_cast<int>(n) + 1, s);
  ASSERT_LE(undone.size(), 9u);
  EXPECT_EQ(aside(run), undone) << said;
}

// Whoever goes on with such a run knows its own checkpoint from what is undone, which is newer by its step.
TEST_F(SpikeE2e, WhoeverIsKilledBeforeUndoneOnesAreSetAsideGoesOnFromItsOwn) {
  const int end = undone_parts().front().second;  // so many saves, and the run goes back
  const int to = undone_parts().front().first - 1;
  for (const int more : {0, 1}) {
    const std::string run = "killed_before" + std::to_string(more);
    Strings args = {"--checkpoint.every=1", "--checkpoint.keep_last=1", "--worker"};
    const std::string kill = "step.save:" + std::to_string(end + more) + ":kill";
    const Ended e = end_of(spiking(run, args),
                           {{"FERRY_FAULT", failing("undone.move", 3, "eio") + "," + kill}});
    ASSERT_EQ(e.status, kKilled) << e.output;
    EXPECT_TRUE(fs::exists(checkpoint(run, end - 1))) << e.output;
    EXPECT_TRUE(aside(run).empty());
    args.emplace_back("--resume");
    const std::string said = ran(spiking(run, args));
    const int from = more == 0 ? end - 1 : to + 1;
    EXPECT_NE(said.find("(step " + std::to_string(from) + ")"), std::string::npos) << said;
    expect_same(trace(run, kLong), base_, run);
    EXPECT_EQ(aside(run).size(), 1u);
  }
}

// What will not change ends no run either, nor does it keep what is to be removed.
TEST_F(SpikeE2e, WhereNothingCanEverBeSetAsideTheRunGoesOn) {
  for (const bool file : {false, true}) {
    const std::string run = file ? "undone_is_a_file" : "undone_is_elsewhere";
    fs::create_directories(path(run));
    if (file) write(path(run) + "/undone", "mine");
    const std::string said = ran(
        spiking(
            run,
            {"--checkpoint.every=1", "--checkpoint.keep_last=2", "--checkpoint.keep_best=false"}),
        file ? Environment() : Environment{{"FERRY_FAULT", "undone.move:*:erofs"}});
    EXPECT_GE(times(said, "are not set aside yet"), 2u) << said;
    EXPECT_EQ(times(said, "starting again"), 0u) << said;
    expect_same(trace(run, kLong), base_, run);
    Strings left;
    for (const auto& entry : fs::directory_iterator(path(run)))
      if (entry.path().filename().string().starts_with("step-")) left.push_back(entry.path());
    std::sort(left.begin(), left.end());
    EXPECT_EQ(left, (Strings{checkpoint(run, kLong - 1), checkpoint(run, kLong)}));
    if (file) {
      EXPECT_EQ(read(path(run) + "/undone"), "mine");
    }
  }
}

// The undone one stands in the place of a step that is good by now, and that the disk had no room for.
TEST_F(SpikeE2e, WhatIsUndoneIsNotGoneBackTo) {
  const Environment faults = {
      {"FERRY_FAULT",
       "spoil.loss:19:eio,spoil.loss:20:eio,spoil.loss:21:eio,spoil.loss:32:eio,spoil.loss:33:eio,"
       "spoil.loss:34:eio,undone.move:*:eio,file.no_room:4:enospc"}};
  const Ended e = end_of(ladder("undone_place", {"--checkpoint.every=1000"}), faults);
  ASSERT_EQ(e.status, 0) << e.output;
  EXPECT_EQ(times(e.output, "step 20 is not saved"), 1u) << e.output;
  EXPECT_EQ(times(e.output, "is what was undone, and not set aside yet"), 1u) << e.output;
  EXPECT_EQ(times(e.output, "back to step 10 "), 2u) << e.output;
  EXPECT_EQ(times(e.output, "back to step 20 "), 0u) << e.output;
}

// What was evaluated of undone steps is undone with them.
TEST_F(SpikeE2e, EvaluationsOfUndoneStepsAreSetAside) {
  ran(spiking("evaluated", {"--train.evaluate_every=1", "--train.evaluate_tokens=64"}));
  const auto evaluated = [&](const std::string& file) {
    std::vector<std::pair<int, std::string>> steps;
    for (const Json& j : records(path("evaluated") + file))
      steps.emplace_back(j["step"].get<int>(), j["kind"].get<std::string>());
    return steps;
  };
  // Each step's record, and behind it that of its evaluation; the run goes back before the last one's is made.
  const auto undone = evaluated("/metrics.undone.jsonl");
  size_t evaluations = 0;
  for (size_t i = 0; i < undone.size(); ++i) {
    if (undone[i].second == "step") continue;
    ASSERT_GT(i, 0u);
    EXPECT_EQ(undone[i], std::pair(undone[i - 1].first, std::string("held_out"))) << i;
    EXPECT_EQ(undone[i - 1].second, "step") << i;
    ++evaluations;
  }
  const auto rewinds = steps_of("evaluated").back()["rewinds"].get<size_t>();
  EXPECT_EQ(undone.size() - evaluations, evaluations + rewinds);
  EXPECT_GE(evaluations, 4u);
  const auto left = evaluated("/metrics.jsonl");
  ASSERT_EQ(left.size(), 2 * static_cast<size_t>(kLong));
  for (size_t i = 0; i < left.size(); ++i) EXPECT_EQ(left[i].first, static_cast<int>(i / 2) + 1);
}

// An older place is taken where that of before the spike is damaged, by all ranks alike, or cannot be read for long; a
// disk that answers the next moment changes nothing.
TEST_F(SpikeE2e, AnOlderPlaceIsTakenWhereTheLastCannotBeRead) {
  const int spike = records(path("base") + "/metrics.undone.jsonl").front()["step"].get<int>();
  const int to = spike - 1;  // the first one that is undone follows the place
  ASSERT_EQ(to % 10, 0);
  const std::string told = "step " + std::to_string(to) + " cannot be gone back to";
  const std::string back = "back to step " + std::to_string(to - 10) + " ";
  std::optional<Trace> older;
  for (const int ranks : {1, 2}) {
    const std::string run = "damaged" + std::to_string(ranks);
    const Strings args = spiking(run, {"--checkpoint.keep_last=9"});
    Program p(root_ / "log",
              ranks == 1 ? args : launched(ranks, args),
              {{"FERRY_FAULT", "beat.train:*:delay10"}});
    ASSERT_TRUE(wait_for([&] {
      return p.ended() || steps_of(run).size() > static_cast<size_t>(to);
    })) << p.output();
    const std::string file = checkpoint(run, to) + "/model.safetensors";
    std::string bytes = read(file);
    ASSERT_FALSE(bytes.empty());
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    write(file, bytes);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_TRUE(p.said(told)) << p.output();
    EXPECT_TRUE(p.said(back)) << p.output();
    if (!older) older = trace(run, kLong);
    expect_same(trace(run, kLong), *older, run);
  }
  EXPECT_NE(older->weights, base_.weights);
  // Tried three times; by ranks, at the same moment.
  const std::string said = ran(spiking("late"), {{"FERRY_FAULT", failing("step.look", 2, "eio")}});
  EXPECT_EQ(times(said, "cannot be gone back to"), 0u) << said;
  expect_same(trace("late", kLong), base_, "late");
  const Strings args = spiking("unread", {"--checkpoint.keep_last=9"});
  const std::string unread =
      ran(launched(2, args), {{"FERRY_FAULT", failing("step.look@1", 3, "eio")}});
  EXPECT_NE(unread.find(told), std::string::npos) << unread;
  EXPECT_NE(unread.find("rank 1 cannot read it"), std::string::npos) << unread;
  expect_same(trace("unread", kLong), *older, "unread");
  // Where there is no older one that can be read, a worker that follows finds the disk as it was.
  const Ended none =
      end_of(spiking("none", {"--supervisor.restarts=1"}), {{"FERRY_FAULT", "step.look:*:eio"}});
  EXPECT_EQ(none.status, 3) << none.output;
  EXPECT_NE(none.output.find("and no older checkpoint can be gone back to"), std::string::npos)
      << none.output;
  ran(spiking("none", {"--resume"}));
  expect_same(trace("none", kLong), base_, "none");
}

// Who is to stop leaves a disk that does not answer to whoever goes on: an older place would be another model.
TEST_F(SpikeE2e, AStopWhileThePlaceCannotBeReadGoesBackNowhere) {
  const auto end = static_cast<size_t>(undone_parts().front().second);
  for (const int ranks : {1, 2}) {
    const std::string run = "stopped_looking" + std::to_string(ranks);
    const Strings args = spiking(run, {"--checkpoint.keep_last=9"});
    {
      Program p(root_ / "log",
                ranks == 1 ? args : launched(ranks, args),
                {{"FERRY_FAULT",
                  std::string("step.rewind:1:delay5000,step.look") + (ranks == 1 ? "" : "@0") +
                      ":1:eio"}});
      ASSERT_TRUE(wait_for([&] { return p.ended() || steps_of(run).size() >= end; })) << p.output();
      p.signal(SIGTERM);
      ASSERT_EQ(p.wait(), 0) << p.output();
      EXPECT_FALSE(p.said("cannot be gone back to")) << p.output();
      EXPECT_FALSE(p.said("rewind     step ")) << p.output();
      EXPECT_TRUE(fs::exists(checkpoint(run, static_cast<int>(end)))) << p.output();
    }
    Strings again = args;
    again.emplace_back("--resume");
    ran(ranks == 1 ? again : launched(ranks, again));
    expect_same(trace(run, kLong), base_, run);
  }
}

// Each rank reads the checkpoint for itself. One that has got something else out of it trains nothing, also where
// nobody looks for silent corruption: all begin again.
TEST_F(SpikeE2e, RanksThatHaveReadSomethingElseAreFound) {
  const std::pair<const char*, const char*> found[] = {
      {"sample", "rank 1 has another model."}, {"off", "rank 1 has other weights than rank 0"}};
  for (const auto& [checks, says] : found) {
    const std::string run = std::string("read_else_") + checks;
    const Strings args = spiking(
        run, {"--supervisor.restarts=0", std::string("--train.corruption_checks=") + checks});
    const Ended e = end_of(launched(3, args), {{"FERRY_FAULT", "flip.restored@1:1:flip123457"}});
    EXPECT_EQ(e.status, 3) << e.output;
    EXPECT_NE(e.output.find(says), std::string::npos) << e.output;
    EXPECT_NE(e.output.find("could not go on with what they held"), std::string::npos) << e.output;
    Strings again = args;
    again.emplace_back("--resume");
    ran(launched(3, again));
    expect_same(trace(run, kLong), base_, run);
  }
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
  EXPECT_EQ(times(e.output, "back to step 60"), 2u) << e.output;
  EXPECT_NE(e.output.find("gone back 2 times to step 60 or to one before it"), std::string::npos)
      << e.output;
  // Three steps each time: what is told is where the last three began and ended.
  EXPECT_NE(e.output.find("Look at tokens 16896 to 17664 of the data"), std::string::npos)
      << e.output;
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
  fs::copy(path("older_stopped"), path("older_not"), fs::copy_options::recursive);
  Strings resumed = more;
  resumed.emplace_back("--resume");
  ran(spiking("older_stopped", resumed));
  expect_same(trace("older_stopped", kLong), older, "stopped");
  // Who asks for none from then on gets none, though the checkpoint has some.
  const size_t before = steps_of("older_not").size();
  ran(spiking("older_not", {"--resume"}));
  const std::vector<Json> of_none = steps_of("older_not");
  for (size_t i = before; i < of_none.size(); ++i)
    EXPECT_FALSE(of_none[i].contains("anticipated")) << of_none[i];
  refused(
      2, launched(2, spiking("older_by2", more)), {"train.anticipatory_steps", "leave launch out"});
  refused(2,
          spiking("older_off", {"--train.rewind_every=0", "--train.anticipatory_steps=12"}),
          {"train.anticipatory_steps", "train.rewind_every is 0"});
}

}  // namespace
