// The built program from text to a trained model, as a person runs it: what is killed, stopped,
// starved of disk or given other threads ends with the same bytes; what is given wrong input says
// so and touches nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/version.h"
#include "checkpoint/passport.h"
#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

class TrainE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    write(root_ / "ids", "1 2 3\n");
    prepare("other", 2);
    ran(train("base"));
    base_ = trace("base");
    ASSERT_EQ(base_.steps.size(), static_cast<size_t>(kSteps));
    ASSERT_LT(base_.steps[kSteps].loss, base_.steps[1].loss - 0.3) << "it does not learn";
  }
  static void copy(const std::string& from, const std::string& to) {
    fs::remove_all(to);
    fs::copy(from, to, fs::copy_options::recursive);
  }

  inline static Trace base_;
};

TEST_F(TrainE2e, StoppedAndResumedIsUninterrupted) {
  // A run that was over before the signal came proves nothing: again.
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::string run = "stopped" + std::to_string(attempt);
    Program p(root_ / "log", train(run));
    ASSERT_TRUE(wait_for([&] { return p.ended() || p.said(" 5/" + std::to_string(kSteps)); }))
        << p.output();
    p.signal(SIGTERM);
    ASSERT_EQ(p.wait(), 0) << p.output();
    if (!p.said("stopped    after step")) continue;
    const std::string resumed = ran(train(run, {"--resume"}));
    EXPECT_NE(resumed.find("resume     from"), std::string::npos) << resumed;
    expect_same(trace(run), base_, run);
    const std::string nothing_to_do = ran(train(run, {"--resume"}));
    EXPECT_EQ(nothing_to_do.find("\"loss\""), std::string::npos)
        << nothing_to_do;  // no step, so no figure
    expect_same(trace(run), base_, run + " once more");
    return;
  }
  FAIL() << "five runs were over before SIGTERM reached them";
}

/// An evaluation is compared with all before it, those before the resume too.
TEST_F(TrainE2e, TheBestEvaluationIsOfTheWholeRun) {
  ran(train("best", {"--train.steps=4"}));
  const std::string resumed = ran(train("best", {"--train.steps=8", "--resume"}));
  EXPECT_NE(resumed.find("(best so far; before "), std::string::npos) << resumed;
  EXPECT_NE(resumed.find(" after step 4)"), std::string::npos) << resumed;
}

// Each worker is killed by a fault or at some moment; the next goes on from what it left.
TEST_F(TrainE2e, KilledAnywhereIsUninterrupted) {
  struct Point {
    const char* name;
    uint64_t last;  // about what three checkpoints pass
  };
  const Point points[] = {{"file.write", 400},
                          {"file.sync", 40},
                          {"file.sync_folder", 12},
                          {"file.rename", 6},
                          {"file.mkdir", 8},
                          {"file.remove", 4}};
  int kills = 0, laps = 0;
  for (; kills < 24 && laps < 12; ++laps) {
    const std::string run = "killed" + std::to_string(laps);
    std::string story = run;
    bool done = false;
    const ferry::Random random(20, ferry::RandomPurpose::kTest, static_cast<uint64_t>(laps));
    for (uint64_t start = 0; start < 40 && !done; ++start) {
      Strings args = train(run, {"--worker"});
      if (start > 0) args.emplace_back("--resume");
      Environment environment;
      int after_ms = -1;
      // After eight starts it is left alone, so that the lap ends.
      if (start < 8) {
        const uint64_t which = random.below(2 * start, std::size(points) + 2);
        if (which < std::size(points)) {
          const Point& point = points[which];
          environment["FERRY_FAULT"] = std::string(point.name) + ":" +
                                       std::to_string(1 + random.below(2 * start + 1, point.last)) +
                                       ":kill";
          story += " " + environment["FERRY_FAULT"];
        } else {
          after_ms = static_cast<int>(random.below(2 * start + 1, 500));
          story += " " + std::to_string(after_ms) + "ms";
        }
      }
      Program p(root_ / "log", args, environment);
      if (after_ms >= 0) {
        sleep_ms(after_ms);
        p.signal(SIGKILL);
      }
      const int status = p.wait();
      ASSERT_TRUE(status == 0 || status == kKilled) << story << ": status " << status << "\n"
                                                    << p.output();
      kills += status == kKilled;
      done = status == 0;
    }
    ASSERT_TRUE(done) << story;
    expect_same(trace(run), base_, story);
    for (const auto& entry : fs::directory_iterator(path(run)))
      EXPECT_EQ(entry.path().filename().string().find(".tmp"), std::string::npos)
          << story << ": left over: " << entry.path();
    fs::remove_all(path(run));
  }
  EXPECT_GE(kills, 24) << "in " << laps << " laps";
}

TEST_F(TrainE2e, SupervisorStartsAKilledWorkerAgain) {
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::string run = "supervised" + std::to_string(attempt);
    Program p(root_ / "log", train(run));
    ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint(run); })) << p.output();
    if (!p.ended() && worker_of(path(run)) > 0) ::kill(worker_of(path(run)), SIGKILL);
    ASSERT_EQ(p.wait(), 0) << p.output();
    if (!p.said("resume     from")) continue;
    expect_same(trace(run), base_, run);
    const std::string status = ran({"status", path(run)});
    EXPECT_NE(status.find("with status 0: it is done"), std::string::npos) << status;
    EXPECT_NE(status.find("was ended by signal 9"), std::string::npos) << status;
    return;
  }
  FAIL() << "five runs were over before their worker was killed";
}

/// A run is what its files said when it began, whoever edits them meanwhile, and whoever else must
/// start its worker again.
TEST_F(TrainE2e, EditedSettingsDoNotReachARunThatGoesOn) {
  const std::string key = path("edited.key"), config = path("edited.json");
  ran({"keygen", key});
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::string run = "edited" + std::to_string(attempt);
    write(root_ / "edited.toml", read(root_ / "run.toml"));
    Program p(root_ / "log", train(run, {}, "edited.toml"));
    ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint(run); })) << p.output();
    write(root_ / "edited.toml", "[model]\nhidden_size = 64\n[optimizer]\nlr = 0.5\n");
    if (!p.ended() && worker_of(path(run)) > 0) ::kill(worker_of(path(run)), SIGKILL);
    ASSERT_EQ(p.wait(), 0) << p.output();
    EXPECT_FALSE(p.said("changed ")) << p.output();
    if (!p.said("resume     from")) continue;
    expect_same(trace(run), base_, run);

    // What the settings name is read once, too.
    Json model = Json::parse(read(checkpoint("base") + "/config.json"));
    write(config, model.dump());
    write(root_ / "named.toml", "[model]\nconfig = \"" + config + "\"\n" + kRun);
    const std::string named = run + "named";
    Program q(root_ / "log", train(named, {"--checkpoint.key=" + key}, "named.toml"));
    ASSERT_TRUE(wait_for([&] { return q.ended() || has_checkpoint(named); })) << q.output();
    model["hidden_size"] = 64;
    write(config, model.dump());
    fs::remove(key);
    if (!q.ended() && worker_of(path(named)) > 0) ::kill(worker_of(path(named)), SIGKILL);
    ASSERT_EQ(q.wait(), 0) << q.output();
    ran({"verify", checkpoint(named), "--quick", "--key", key + ".pub"});
    return;
  }
  FAIL() << "five runs were over before their worker was killed";
}

TEST_F(TrainE2e, SettingsMayComeThroughAPipe) {
  const std::string pipe = path("settings.fifo");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  Program p(root_ / "log", train("piped", {"--train.steps=2"}, "settings.fifo"));
  write(pipe, read(root_ / "run.toml"));
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(has_checkpoint("piped"));
}

TEST_F(TrainE2e, WorkerDiesWithItsSupervisor) {
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);  // the orphan becomes ours: we see how it ends
  const std::string run = "orphaned";
  Program p(root_ / "log", train(run, {"--train.steps=100000", "--checkpoint.every=2"}));
  ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint(run); })) << p.output();
  ASSERT_FALSE(p.ended()) << p.output();
  const pid_t worker = worker_of(path(run));
  ASSERT_GT(worker, 0);
  p.signal(SIGKILL);
  ASSERT_EQ(p.wait(), kKilled);
  int status = 0;
  ASSERT_TRUE(wait_for([&] { return ::waitpid(worker, &status, WNOHANG) == worker; }))
      << "worker " << worker << " lives on";
  EXPECT_EQ(status_of(status), kKilled);
  Program again(root_ / "log",
                train(run, {"--train.steps=100000", "--resume"}));  // the folder is free again
  ASSERT_TRUE(wait_for([&] { return again.ended() || again.said("resume     from"); }))
      << again.output();
  again.signal(SIGTERM);
  EXPECT_EQ(again.wait(), 0) << again.output();
}

TEST_F(TrainE2e, GoesOnWhenNobodyReadsItsOutput) {
  // As in `ferry train ... 2>&1 | head -n 1`, and with its output on a disk that is full. The worker
  // is killed once, so that the supervisor has something to say as well.
  const std::string pipe = path("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  Program p(pipe, train("unread", {"--train.steps=400", "--checkpoint.every=100"}));
  ASSERT_TRUE(wait_for([&] {
    char c;
    return ::read(reader, &c, 1) == 1;
  }));
  ::close(reader);
  ASSERT_TRUE(wait_for([&] { return has_checkpoint("unread"); }));
  const pid_t worker = worker_of(path("unread"));
  ASSERT_GT(worker, 0);
  ::kill(worker, SIGKILL);
  EXPECT_EQ(p.wait(), 0);  // done, though nobody reads it
  EXPECT_TRUE(fs::exists(checkpoint("unread", 400)));

  EXPECT_EQ(Program("/dev/full", train("full")).wait(), 3);
  expect_same(trace("full"), base_, "full");
}

TEST_F(TrainE2e, BitsDoNotDependOnHowItIsComputed) {
  const Strings numerics[] = {{},
                              {"--train.compute=f32"},
                              {"--train.mla_form=absorbed"},
                              {"--train.micro_batch_tokens=128"},
                              {"--optimizer.kind=muon", "--checkpoint.weights=bf16"}};
  // Of the weights' file. They are numerics 2 (docs/numerics.md) and stay what they are: where they change, either
  // something is wrong on every tier alike, or kNumerics is to be another, which old checkpoints are told apart by.
  const char* const pinned[] = {"56ade51bf97769a7fa3ac65af3ccff1d",
                                "9b0076e1ccafdc1fb00592145b37f5ad",
                                "f1526fe8cc0767ac911d88a2e29e975e",
                                "3aee0695d7e7258b9fde1092c488f646",
                                "fae91993d27e5ddfa929db478abcda18"};
  static_assert(ferry::kNumerics == 2);
  const struct {
    Environment environment;
    Strings settings;
  } ways[] = {{{{"FERRY_THREADS", "1"}}, {}},
              {{{"FERRY_THREADS", "3"}}, {"--train.recompute=layers"}},
              {{{"FERRY_CPU", "plain"}},
               {"--train.recompute=none",
                "--checkpoint.every=0",
                "--train.evaluate_every=0",
                "--log.tensorboard=false"}}};
  std::vector<Trace> seen;
  for (size_t n = 0; n < std::size(numerics); ++n) {
    for (size_t w = 0; w < std::size(ways); ++w) {
      const std::string run = "way" + std::to_string(n) + std::to_string(w);
      Strings more = numerics[n];
      more.insert(more.end(), {"--train.steps=4", "--checkpoint.every=4"});
      more.insert(more.end(), ways[w].settings.begin(), ways[w].settings.end());
      ran(train(run, more), ways[w].environment);
      const Trace t = trace(run, 4);
      if (w == 0)
        seen.push_back(t);
      else
        expect_same(t, seen.back(), run);
    }
    EXPECT_EQ(ferry::blake2b_hex(seen[n].weights.data(), seen[n].weights.size()).substr(0, 32),
              pinned[n])
        << "settings " << n;
    for (size_t other = 0; other < n; ++other)
      EXPECT_FALSE(seen[n].state == seen[other].state) << "settings " << n << " change nothing";
  }
}

TEST_F(TrainE2e, SettingsAreRefused) {
  write(root_ / "unknown.toml", std::string(kTinyModel) + "[train]\nstesp = 3\n");
  refused(2,
          train("none", {}, "unknown.toml"),
          {"unknown.toml:30", "train.stesp", "did you mean train.steps"});
  refused(2, train("none", {"--train.steps=-1"}), {"train.steps is -1", "1 to"});
  refused(2, train("none", {"--train.steps=4x"}), {"train.steps", "4x"});
  refused(2,
          train("none", {"--train.micro_batch_tokens=100"}),
          {"train.micro_batch_tokens is 100", "data.sequence_length"});
  refused(2, train("none", {"--data.sequence_length=256"}), {"256", "128 positions"});
  refused(2, train("none", {"--train.device=abacus"}), {"abacus"});
  refused(2, train("none", {"--resume", "please"}), {"please"});
  refused(2, train("none", {"--worker"}, "absent.toml"), {"absent.toml"});
  refused(2, {"train"}, {"config"});
  refused(2, {"sail"}, {"sail: no such command"});
  EXPECT_EQ(ran({"--version"}), "ferry " + std::string(ferry::kVersion) + "\n");
  EXPECT_FALSE(fs::exists(path("none"))) << "a refused run left its folder";
}

TEST_F(TrainE2e, DataIsRefused) {
  refused(2, train("none", {"--data.dir=" + path("nowhere")}), {path("nowhere"), "data prepare"});
  copy(path("text"), path("harmed"));
  for (const auto& entry : fs::recursive_directory_iterator(path("harmed"))) {
    if (!entry.is_regular_file() ||
        entry.path().filename().string().find("train") == std::string::npos)
      continue;
    std::string bytes = read(entry.path());
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    write(entry.path(), bytes);
    refused(2,
            train("none", {"--data.dir=" + path("harmed")}),
            {path("harmed"), entry.path().filename().string()});
    write(entry.path(), bytes.substr(0, bytes.size() - 1));
    refused(2,
            train("none", {"--data.dir=" + path("harmed")}),
            {path("harmed"), entry.path().filename().string()});
    break;
  }
  EXPECT_FALSE(fs::exists(path("none"))) << "a refused run left its folder";
  copy(path("base"), path("base2"));
  refused(2,
          train("base2", {"--resume", "--data.dir=" + path("other"), "--train.steps=20"}),
          {checkpoint("base2"), "other data", "model.init"});
  expect_same(trace("base2"), base_, "after a refusal");
}

TEST_F(TrainE2e, RunFolderIsGuarded) {
  // What is shown of a run is that run's, not that of a start which was refused.
  const std::string shown = read(path("base") + "/status.json");
  ASSERT_FALSE(shown.empty());
  refused(2, train("base"), {path("base"), "--resume", "step 16"});
  EXPECT_EQ(read(path("base") + "/status.json"), shown);
  refused(2, train("base", {"--resume", "--model.hidden_size=24"}), {"hidden_size"});
  EXPECT_EQ(read(path("base") + "/status.json"), shown);
  expect_same(trace("base"), base_, "after a refusal");
  const Strings endless = {
      "--train.steps=100000", "--checkpoint.every=0", "--train.evaluate_every=0"};
  Program p(root_ / "first.log", train("locked", endless));
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("1/100000"); })) << p.output();
  refused(2,
          train("locked", endless),
          {path("locked"), "another run", std::to_string(worker_of(path("locked")))});
  refused(2, train("locked", {"--resume"}), {path("locked"), "another run"});
  EXPECT_FALSE(p.ended()) << p.output();
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("stopped    after step")) << p.output();
}

/// A folder that is moved away under a run has its lock no more: the run makes it again and goes on, with all that it
/// has reported; and where another run has come meanwhile, it ends, for each would remove the other's checkpoints.
TEST_F(TrainE2e, ARunWhoseFolderIsTakenAwayKeepsOthersOutOrEnds) {
  const Strings endless = {"--train.steps=100000", "--train.evaluate_every=0"};
  const auto with = [&](const char* more) {
    Strings all = endless;
    all.emplace_back(more);
    return train("taken", all);
  };
  Program p(root_ / "first.log", with("--checkpoint.every=20"));
  // Not in the middle of a save: that would fail, and the run begin again.
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("saved      "); })) << p.output();
  fs::rename(path("taken"), path("taken.1"));
  ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint("taken"); })) << p.output();
  refused(2,
          with("--resume"),
          {path("taken"), "another run", std::to_string(worker_of(path("taken")))});
  EXPECT_TRUE(p.said("was removed or moved away under this run")) << p.output();
  EXPECT_NE(read(path("taken") + "/metrics.jsonl").find("\"step\":1,"), std::string::npos);
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  ran(train("taken.1", {"--resume", "--train.steps=21"}));  // what was moved is nobody's any more

  fs::remove_all(path("taken"));
  Program old(root_ / "old.log", with("--checkpoint.every=0"));
  ASSERT_TRUE(wait_for([&] { return old.ended() || old.said("1/100000"); })) << old.output();
  fs::remove_all(path("taken"));
  Program other(root_ / "other.log", with("--checkpoint.every=0"));
  ASSERT_TRUE(wait_for([&] { return other.ended() || other.said("1/100000"); })) << other.output();
  old.signal(SIGTERM);
  EXPECT_EQ(old.wait(), 3) << old.output();
  EXPECT_TRUE(old.said("another run uses this folder")) << old.output();
  EXPECT_FALSE(has_checkpoint("taken"));
  other.signal(SIGTERM);
  EXPECT_EQ(other.wait(), 0) << other.output();
  EXPECT_TRUE(has_checkpoint("taken"));
}

// A torn checkpoint is not gone on from; the one before it is. A changed byte is refused.
TEST_F(TrainE2e, HarmedCheckpointsAreToldApart) {
  copy(path("base"), path("torn"));
  fs::resize_file(checkpoint("torn") + "/model.safetensors", 1000);
  const std::string resumed = ran(train("torn", {"--resume"}));
  EXPECT_NE(resumed.find("ignored    "), std::string::npos) << resumed;
  EXPECT_NE(resumed.find("resume     from " + checkpoint("torn", kSteps - 2)), std::string::npos)
      << resumed;
  expect_same(trace("torn"), base_, "torn");
  // Writing the torn one anew is a replacement; it may be cut short as well.
  fs::resize_file(checkpoint("torn") + "/model.safetensors", 1000);
  const Ended cut =
      end_of(train("torn", {"--worker", "--resume"}), {{"FERRY_FAULT", "file.exchange:1:kill"}});
  EXPECT_EQ(cut.status, kKilled) << cut.output;
  ran(train("torn", {"--resume"}));
  expect_same(trace("torn"), base_, "torn, then killed");
  for (const char* const file : {"model.safetensors", "state/part-00000.safetensors"}) {
    copy(path("base"), path("flipped"));
    const fs::path harmed = fs::path(checkpoint("flipped")) / file;
    std::string bytes = read(harmed);
    bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 64);
    write(harmed, bytes);
    // The one before it can be used: it says so.
    refused(2,
            train("flipped", {"--resume", "--train.steps=20"}),
            {harmed.string(), checkpoint("flipped", kSteps - 2), "is whole"});
  }
}

/// A run whose every checkpoint is harmed, or cannot be read just now, is not begun anew by
/// --resume, nor by a plain start; its metrics stay.
TEST_F(TrainE2e, ARunWithoutAUsableCheckpointIsNotBegunAnew) {
  ran(train("lone", {"--train.steps=4", "--checkpoint.every=4"}));
  const std::string here = checkpoint("lone", 4), metrics = path("lone") + "/metrics.jsonl";
  const std::string part = here + "/state/part-00000.safetensors", lines = read(metrics);
  ASSERT_FALSE(lines.empty());
  fs::rename(part, path("aside"));
  refused(2, train("lone", {"--resume"}), {part, "missing", "another checkpoint.dir"});
  refused(2, train("lone"), {part, "missing", "another checkpoint.dir"});
  EXPECT_EQ(read(metrics), lines);
  fs::rename(path("aside"), part);
  // What is only out of reach is not damaged: the run waits until it is back.
  for (const char* const fault : {"file.open:*:eio", "file.size:*:eacces", "file.stat:*:eio"}) {
    const Ended e = end_of(train("lone", {"--worker", "--resume"}), {{"FERRY_FAULT", fault}});
    EXPECT_NE(e.status, 0) << fault << e.output;
    EXPECT_EQ(read(metrics), lines) << fault;
  }
  refused(
      3, train("lone", {"--resume"}), {"list", path("lone")}, {{"FERRY_FAULT", "file.list:*:eio"}});
  EXPECT_EQ(read(metrics), lines);
  const std::string resumed = ran(train("lone", {"--resume", "--checkpoint.every=4"}));
  EXPECT_NE(resumed.find("resume     from " + here), std::string::npos) << resumed;
}

/// A checkpoint whose state/ was removed to save space is used as any model, and no run goes on from it.
TEST_F(TrainE2e, ACheckpointIsUsedWithoutItsTrainingState) {
  ran(train("slim", {"--train.steps=4", "--checkpoint.every=4"}));
  const std::string model = checkpoint("slim", 4);
  const Strings generate = {
      "generate", model, "--prompt", "a", "--tokens", "3", "--temperature", "0"};
  const std::string before = ran(generate);
  fs::remove_all(model + "/state");
  EXPECT_EQ(ran(generate), before);
  ran({"eval", model, "--data", path("text"), "--no-compressors"});
  EXPECT_NE(ran({"verify", model, "--quick"}).find("state/) was left out"), std::string::npos);
  ran({"keygen", path("slim.key")});
  const std::string signed_ = ran({"passport", model, "--key", path("slim.key")});
  EXPECT_NE(signed_.find(model + ": its training state"), std::string::npos) << signed_;
  refused(2, train("slim", {"--resume"}), {model, "state/", "put the folder back"});
  // Nor from an older one, for what would be saved over it.
  write(root_ / "slim.toml", kRun);
  ran(train("slim2", {"--train.steps=4", "--checkpoint.every=2"}));
  const std::string kept = checkpoint("slim2", 4);
  fs::rename(kept + "/state", path("slim2-state"));
  const std::string sums = read(kept + "/checksums.json");
  refused(2, train("slim2", {"--resume"}), {kept, "move it away", "step 4 is saved"});
  EXPECT_EQ(read(kept + "/checksums.json"), sums);
  fs::rename(kept, path("slim2-kept"));
  const std::string resumed = ran(train("slim2", {"--resume", "--train.steps=4"}));
  EXPECT_NE(resumed.find("resume     from " + checkpoint("slim2", 2)), std::string::npos)
      << resumed;
  // An older one without is in nobody's way.
  fs::remove_all(checkpoint("slim2", 2) + "/state");
  ran(train("slim2", {"--resume", "--train.steps=6"}));
  ran(train("of_slim", {"--model.init=" + model, "--train.steps=2"}, "slim.toml"));
}

/// The records of a run whose checkpoints somebody took away are not written over.
TEST_F(TrainE2e, MetricsOfARunWithoutItsCheckpointsAreSetAside) {
  ran(train("bare", {"--train.steps=4", "--checkpoint.every=4"}));
  const std::string lines = read(path("bare") + "/metrics.jsonl");
  fs::remove_all(checkpoint("bare", 4));
  const std::string output = ran(train("bare", {"--train.steps=4", "--checkpoint.every=4"}));
  EXPECT_EQ(read(path("bare") + "/metrics.1.jsonl"), lines);
  EXPECT_NE(output.find("metrics.1.jsonl"), std::string::npos) << output;
}

/// What will be in the way of a later save is told before the work, not at that step.
TEST_F(TrainE2e, AFolderInTheWayOfALaterSaveIsToldAtTheStart) {
  copy(path("base"), path("way"));
  const std::string in_the_way = checkpoint("way");
  fs::remove(in_the_way + "/checksums.json");
  refused(2, train("way", {"--resume"}), {in_the_way, "move it away"});
  EXPECT_TRUE(fs::exists(in_the_way + "/model.safetensors"));
  fs::remove_all(in_the_way);
  ran(train("way", {"--resume"}));
  expect_same(trace("way"), base_, "after what was in the way is gone");
}

/// A checkpoint that somebody has put a file into is not removed with it.
TEST_F(TrainE2e, WhatSomebodyPutIntoACheckpointIsNotRemovedWithIt) {
  ran(train("notes", {"--train.steps=2"}));
  const std::string mine = checkpoint("notes", 2) + "/notes.txt";
  write(mine, "a good one");
  const std::string output = ran(train("notes", {"--resume", "--checkpoint.keep_last=1"}));
  EXPECT_EQ(read(mine), "a good one");
  EXPECT_NE(output.find("warning    " + mine), std::string::npos) << output;
  expect_same(trace("notes"), base_, "with notes");
}

/// Paths are bytes: one that is no UTF-8 is used, though what is said of it in JSON is not the same.
TEST_F(TrainE2e, AFolderWhoseNameIsNoUtf8IsTrainedIn) {
  const std::string run = "caf\xe9";
  ran(train(run, {"--train.steps=4"}));
  ran(train(run, {"--resume"}));
  expect_same(trace(run), base_, run);
  ran({"verify", checkpoint(run), "--quick"});
  // A file of a model whose name no list could repeat is left where it is, and told.
  const std::string model = path("named");
  copy(checkpoint("base"), model);
  for (const char* guard : {"checksums.json", "passport.json"}) fs::remove(model + "/" + guard);
  fs::create_directory(model + "/additional_chat_templates");
  write(model + "/additional_chat_templates/caf\xe9.jinja", "{{ a }}");
  const std::string output = ran({"convert", model, "--out", path("renamed")});
  EXPECT_NE(output.find("its name is not UTF-8"), std::string::npos) << output;
  ran({"verify", path("renamed")});
}

/// A log that somebody edited or a disk harmed is no reason not to train.
TEST_F(TrainE2e, ABadLineOfTheMetricsIsSetAside) {
  ran(train("logged", {"--train.steps=4"}));
  const std::string metrics = path("logged") + "/metrics.jsonl", lines = read(metrics);
  write(metrics, "nonsense\n" + lines);
  const std::string output = ran(train("logged", {"--resume"}));
  EXPECT_NE(output.find("metrics.unreadable.txt"), std::string::npos) << output;
  EXPECT_EQ(read(path("logged") + "/metrics.unreadable.txt"), "nonsense\n");
  EXPECT_TRUE(read(metrics).starts_with(lines));
  expect_same(trace("logged"), base_, "with a bad line");
}

/// An evaluation that a stop cut short is made up for: the checkpoint has its figure.
TEST_F(TrainE2e, AStopDuringAnEvaluationDoesNotLoseIt) {
  for (const int step : {4, kSteps}) {
    const std::string run = "unevaluated" + std::to_string(step);
    Strings more = {"--train.evaluate_every=" + std::to_string(step)};
    Program p(root_ / "log", train(run, more), {{"FERRY_FAULT", "beat.evaluate:1:delay3000"}});
    ASSERT_TRUE(wait_for([&] {
      return p.ended() ||
             read(path(run) + "/metrics.jsonl").find("\"step\":" + std::to_string(step) + ",") !=
                 std::string::npos;
    })) << p.output();
    sleep_ms(300);
    p.signal(SIGTERM);
    ASSERT_EQ(p.wait(), 0) << p.output();
    const std::string state = checkpoint(run, step) + "/state/state.json";
    EXPECT_FALSE(Json::parse(read(state)).contains("held_out_loss")) << "was not cut short";
    more.emplace_back("--resume");
    const std::string output = ran(train(run, more));
    EXPECT_NE(output.find("held-out after step " + std::to_string(step) + ":"), std::string::npos)
        << output;
    if (step == kSteps) {
      EXPECT_TRUE(Json::parse(read(state)).contains("held_out_loss"));
    }
    expect_same(trace(run), base_, run);
  }
}

TEST_F(TrainE2e, AStateOfOtherWeightsIsRefused) {
  // What a passport vouches for are the model's weights: a training state beside them, whole by its
  // own sums, must not bring others.
  ran(train("mixed", {"--checkpoint.weights=bf16"}));
  const std::string part = "state/part-00000.safetensors";
  const fs::path here = checkpoint("mixed"), other = checkpoint("mixed", kSteps - 2);
  fs::copy_file(other / part, here / part, fs::copy_options::overwrite_existing);
  Json sums = Json::parse(read(here / "checksums.json"));
  sums["files"][part] = Json::parse(read(other / "checksums.json"))["files"][part];
  write(here / "checksums.json", sums.dump(1));
  refused(2,
          train("mixed", {"--checkpoint.weights=bf16", "--resume", "--train.steps=20"}),
          {"does not round to the model's weight", checkpoint("mixed", kSteps - 2), "is whole"});
}

TEST_F(TrainE2e, AStateThatCannotBeIsRefused) {
  const std::string file = "state/state.json";
  const std::pair<const char*, Json> wrong[] = {{"optimizer_steps", -1},
                                                {"optimizer_steps", kSteps + 1},
                                                {"numerics", ferry::kNumerics - 1},
                                                {"refused", -1},
                                                {"tokens", 1e30},
                                                {"spike_since", kSteps + 1},
                                                {"rewinds", -1},
                                                {"loss_window", std::vector<double>(1000, 1.0)},
                                                {"norm_window", Json::array({"much"})}};
  for (const auto& [field, value] : wrong) {
    copy(path("base"), path("wrong"));
    const fs::path here = checkpoint("wrong");
    Json state = Json::parse(read(here / file));
    state[field] = value;
    const std::string text = state.dump(1);
    write(here / file, text);
    Json sums = Json::parse(read(here / "checksums.json"));
    sums["files"][file] = {{"bytes", text.size()},
                           {"blake2b", ferry::blake2b_hex(text.data(), text.size())}};
    write(here / "checksums.json", sums.dump(1));
    refused(2, train("wrong", {"--resume", "--train.steps=20"}), {field});
  }
}

TEST_F(TrainE2e, FullDiskKeepsTheEarlierCheckpoint) {
  int failed = 0, kept = 0, told = 0;
  for (const char* const fault : {"file.write:150:enospc",
                                  "file.write:300:enospc",
                                  "file.write:500:enospc",
                                  "file.sync:30:eio",
                                  "file.rename:3:erofs",
                                  "file.mkdir:3:enospc"}) {
    const std::string run = "full";
    fs::remove_all(path(run));
    // With its supervisor, who must know that a read-only disk is as closed after a restart; another error would come
    // at the same place in every worker.
    const bool full = std::string(fault).ends_with("enospc"),
               passes = std::string(fault).ends_with("eio");
    const Ended e =
        end_of(train(run, passes ? Strings{"--worker"} : Strings{}), {{"FERRY_FAULT", fault}});
    ASSERT_TRUE(e.status == 0 || e.status == 3) << fault << ": " << e.status << "\n" << e.output;
    EXPECT_EQ(e.output.find("starting again"), std::string::npos) << fault << "\n" << e.output;
    // What is full for a moment is tried again.
    if (full) {
      EXPECT_EQ(e.status, 0) << fault << "\n" << e.output;
      told += e.output.find("No space left") != std::string::npos;
    }
    if (e.status == 3) {
      ++failed;
      EXPECT_NE(e.output.find(path(run)), std::string::npos) << "says not where\n" << e.output;
    }
    if (has_checkpoint(run)) {
      ++kept;
      int newest = kSteps;
      while (newest > 0 && !fs::exists(checkpoint(run, newest))) --newest;
      ran({"logits", checkpoint(run, newest), "--tokens", path("ids"), "--out", path("logits")});
    }
    ran(train(run, {"--worker", "--resume"}));
    expect_same(trace(run), base_, fault);
  }
  EXPECT_GE(failed, 1);
  EXPECT_GE(told, 2);
  EXPECT_GE(kept, 2);
}

/// So many looks at the free space of the disk, from the n-th on, find none.
std::string no_room(int n, int looks) {
  std::string faults;
  for (int i = 0; i < looks; ++i)
    faults += (i > 0 ? ",file.no_room:" : "file.no_room:") + std::to_string(n + i) + ":enospc";
  return faults;
}

/// A checkpoint that is due is left out, and tried again when the next one is; the last one is waited for. Also where
/// the disk has room again by the time that somebody looks.
TEST_F(TrainE2e, ADiskThatIsFullForAWhileEndsNoRun) {
  int left_out = 0, waited = 0;
  for (int n = 2; n < 16 && (left_out == 0 || waited == 0); ++n) {
    fs::remove_all(path("room"));
    const Ended e = end_of(train("room", {"--worker"}), {{"FERRY_FAULT", no_room(n, 1)}});
    if (e.status == 3 && e.output.find("the checkpoints need about") != std::string::npos) continue;
    ASSERT_EQ(e.status, 0) << n << "\n" << e.output;
    left_out += e.output.find("tries again when the next checkpoint is due") != std::string::npos;
    waited += e.output.find("saved once there is room") != std::string::npos;
    expect_same(trace("room"), base_, "from look " + std::to_string(n));
  }
  EXPECT_GT(left_out, 0);
  EXPECT_GT(waited, 0);
}

/// Whoever stops a run that waits for room gives up what was trained since the newest checkpoint, and is told.
TEST_F(TrainE2e, AStopEndsTheWaitForRoom) {
  const std::string run = "no_room";
  Program p(root_ / "no_room.log",
            train(run, {"--checkpoint.every=1000000"}),
            {{"FERRY_FAULT", no_room(2, 900)}});
  ASSERT_TRUE(wait_for([&] { return p.ended() || p.said("saved once there is room"); }))
      << p.output();
  const auto shown = [&] {
    return ran({"status", path(run)}).find("waiting for somebody to free space") !=
           std::string::npos;
  };
  EXPECT_TRUE(wait_for([&] { return p.ended() || shown(); })) << ran({"status", path(run)});
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 3) << p.output();
  EXPECT_TRUE(p.said("could not write before it had saved")) << p.output();
  EXPECT_FALSE(p.said("starting again")) << p.output();
  EXPECT_FALSE(has_checkpoint(run));
}

/// What cannot be reported just now is reported later: the run goes on.
TEST_F(TrainE2e, ALogThatCannotBeWrittenEndsNoRun) {
  int kept = 0;
  for (int n = 1; n < 20 && kept < 2; ++n) {  // the first ones are of other files
    fs::remove_all(path("unlogged"));
    const Ended e = end_of(train("unlogged", {"--worker"}),
                           {{"FERRY_FAULT", "file.write:" + std::to_string(n) + ":eio"}});
    if (e.output.find("it is kept, and tried again") == std::string::npos) continue;
    ++kept;
    EXPECT_EQ(e.status, 0) << n << "\n" << e.output;
    EXPECT_NE(e.output.find("is written again, and all of it"), std::string::npos) << e.output;
    expect_same(trace("unlogged"), base_, "write " + std::to_string(n));
  }
  EXPECT_EQ(kept, 2);
}

std::set<std::string> tensors_in(const std::string& model) {
  const std::string bytes = read(model + "/model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::set<std::string> names;
  const Json layout = Json::parse(bytes.substr(8, header));
  for (const auto& [name, tensor] : layout.items())
    if (name != "__metadata__") names.insert(name);
  return names;
}

TEST_F(TrainE2e, ConvertedItIsTheSameModel) {
  const std::string source = checkpoint("base"), wide = path("wide"), narrow = path("narrow");
  const auto logits = [&](const std::string& model, const std::string& type) {
    fs::remove(path("logits"));
    ran({"logits", model, "--tokens", path("ids"), "--dtype", type, "--out", path("logits")});
    return read(path("logits"));
  };
  ran({"convert", source, "--to", "f32", "--out", wide});
  EXPECT_EQ(logits(wide, "f32"), logits(source, "f32"));
  EXPECT_EQ(read(wide + "/tokenizer.json"), read(source + "/tokenizer.json"));
  // No tensor is left out, nor what stands there under a second name.
  EXPECT_EQ(tensors_in(wide), tensors_in(source));
  EXPECT_TRUE(tensors_in(wide).contains("model.layers.2.shared_head.head.weight"));
  // Computing in bf16 rounds as storing does; and what was rounded once is not rounded again.
  ran({"convert", wide, "--to", "bf16", "--out", narrow});
  EXPECT_EQ(logits(narrow, "bf16"), logits(source, "bf16"));
  ran({"convert", narrow, "--to", "f32", "--out", path("widened")});
  ran({"convert", path("widened"), "--out", path("again")});
  EXPECT_EQ(read(path("again") + "/model.safetensors"), read(narrow + "/model.safetensors"));
  ran({"passport", narrow});
  ran({"verify", narrow});
  const std::string mine = path("mine");
  fs::create_directory(mine);
  write(mine + "/notes.txt", "not a model");
  refused(2, {"convert", source, "--out", mine}, {mine});
  // Nor is a model: Ferry would replace one that it wrote itself.
  const std::string before = read(narrow + "/checksums.json");
  refused(2, {"convert", wide, "--out", narrow}, {narrow, "is there already"});
  refused(2, {"convert", narrow, "--to", "f32", "--out", narrow}, {narrow, "is there already"});
  EXPECT_EQ(read(narrow + "/checksums.json"), before);
  EXPECT_EQ(read(mine + "/notes.txt"), "not a model");
  refused(2, {"convert", path("text.txt"), "--out", path("none")}, {path("text.txt")});
  refused(3,
          {"convert", source, "--out", path("full-disk")},
          {"space"},
          {{"FERRY_FAULT", "file.write:2:enospc"}});
  EXPECT_FALSE(fs::exists(path("full-disk")));
}

/// Files that Ferry did not write go along byte for byte, also with what Python reads and JSON has not.
TEST_F(TrainE2e, ConvertedItHasItsSourcesFiles) {
  const std::string source = path("odd"), out = path("odd-bf16");
  copy(checkpoint("base"), source);
  fs::remove_all(source + "/state");
  for (const char* const ours : {"checksums.json", "passport.json", "verified.json"})
    fs::remove(source + "/" + ours);
  const std::string config = R"({"model_max_length": Infinity,  "own": {"deep": [1, NaN]}})",
                    generation = R"({"length_penalty":-Infinity})";
  write(source + "/tokenizer_config.json", config);
  write(source + "/generation_config.json", generation);
  ran({"convert", source, "--out", out});
  EXPECT_EQ(read(out + "/tokenizer_config.json"), config);
  EXPECT_EQ(read(out + "/generation_config.json"), generation);
}

TEST_F(TrainE2e, ModelsAndPromptsAreRefused) {
  const std::string model = checkpoint("base"), bad = path("bad");
  refused(2,
          {"eval", model, "--data", path("text"), "--no-compressors", "--context", "100000"},
          {"--context 100000", "positions"});
  const auto all_refuse = [&](const Strings& says) {
    refused(2, {"generate", bad, "--prompt", "a", "--tokens", "2"}, says);
    refused(2, {"logits", bad, "--tokens", path("ids"), "--out", path("out")}, says);
    refused(2, {"eval", bad, "--data", path("text"), "--no-compressors"}, says);
  };
  for (const bool checksums : {true, false}) {  // a folder from elsewhere has none
    copy(model, bad);
    if (!checksums) fs::remove(bad + "/checksums.json");
    fs::resize_file(bad + "/model.safetensors", fs::file_size(bad + "/model.safetensors") - 100);
    all_refuse({bad + "/model.safetensors"});
    copy(model, bad);
    if (!checksums) fs::remove(bad + "/checksums.json");
    if (!checksums) fs::remove(bad + "/passport.json");
    write(bad + "/config.json", "{\"frobnicate\": 1," + read(bad + "/config.json").substr(1));
    all_refuse({bad + "/config.json", checksums ? "checksums.json" : "\"frobnicate\""});
  }
  all_refuse({bad});
  fs::remove_all(bad);
  all_refuse({bad});

  write(root_ / "range", "1 2\n5 999\n");
  refused(2,
          {"logits", model, "--tokens", path("range"), "--out", path("out")},
          {path("range") + ":2", "column 3", "319"});
  write(root_ / "range", "-1\n");
  refused(2,
          {"logits", model, "--tokens", path("range"), "--out", path("out")},
          {path("range") + ":1", "column 1"});
  write(root_ / "range", "");
  refused(2,
          {"logits", model, "--tokens", path("range"), "--out", path("out")},
          {path("range"), "empty"});
  const Ended too_long =
      end_of({"generate", model, "--prompt", read(root_ / "text.txt").substr(0, 3000)});
  EXPECT_EQ(too_long.status, 2);
  EXPECT_TRUE(too_long.output.starts_with("ferry: prompt: ")) << too_long.output;
  EXPECT_NE(too_long.output.find("the model has 128 positions"), std::string::npos)
      << too_long.output;
  refused(3,
          {"logits", model, "--tokens", path("ids"), "--out", path("unwritten")},
          {"space"},
          {{"FERRY_FAULT", "file.write:1:enospc"}});
  for (const auto& entry : fs::directory_iterator(root_))
    EXPECT_FALSE(entry.path().filename().string().starts_with("unwritten")) << entry.path();
  refused(2,
          {"logits", model, "--tokens", model, "--out", path("out")},
          {model, "is a folder; name a file"});
  refused(2, {"logits", model, "--tokens", path("ids"), "--out", path("no/out")}, {"folder"});
  refused(2,
          {"generate", path("base")},
          {path("base") + ": is the folder of a run", checkpoint("base")});
  refused(2, {"generate"}, {"model is required", "`ferry generate --help`"});
  refused(2, {"generate", model, "--device", "cpu:1"}, {"device 'cpu:1': unknown"});
  refused(2, {"generate", model, "--prompt", "a", "--temperature", "-1"}, {"temperature -1"});
  refused(2, {"generate", model, "--prompt", "a", "--top-p", "0"}, {"top"});
  refused(2, {"generate", model, "--prompt", "a", "--tokens", "0"}, {"--tokens"});
  refused(2, {"generate", model, "--prompt", "a", "--dtype", "f16"}, {"--dtype f16"});
  EXPECT_FALSE(fs::exists(path("out")));
}

TEST_F(TrainE2e, ThePassportIsWrittenSignedAndVerified) {
  const std::string key = path("my.key"), other = path("other.key");
  ran({"keygen", key});
  ran({"keygen", other});
  refused(2, {"keygen", key}, {key, "never overwritten"});
  refused(2, train("nokey", {"--checkpoint.key=" + path("no.key")}), {path("no.key")});
  ran(train("signed", {"--checkpoint.key=" + key, "--train.steps=4"}));
  const std::string model = checkpoint("signed", 4);
  const std::string report =
      ran({"verify", model, "--key", key + ".pub", "--html", path("r.html")});
  EXPECT_NE(report.find("equal to the bit"), std::string::npos) << report;
  EXPECT_NE(read(root_ / "r.html").find("</html>"), std::string::npos);
  refused(2, {"verify", model, "--key", other + ".pub"}, {"signed by another key"});
  refused(2, {"verify", checkpoint("base"), "--key", key + ".pub"}, {"is not signed"});
  refused(2, {"verify", model, "--key", key}, {key, "not a public key"});

  // Signed later, by another; a directory without a passport gets one.
  ran({"passport", model, "--key", other});
  ran({"verify", model, "--quick", "--key", other + ".pub"});
  copy(model, path("plain"));
  fs::remove(path("plain") + "/passport.json");
  const Strings generate = {"generate", path("plain"), "--prompt", "a", "--tokens", "2"};
  EXPECT_NE(ran(generate).find("has no passport"), std::string::npos);
  ran({"passport", path("plain")});
  EXPECT_NE(ran(generate).find("never verified on cpu"), std::string::npos);
  ran({"verify", path("plain"), "--quick"});
  EXPECT_EQ(ran(generate).find("note:"), std::string::npos);
  EXPECT_EQ(ran({"generate", checkpoint("base"), "--prompt", "a", "--tokens", "2"}).find("note:"),
            std::string::npos);  // the CPU's answers are in its passport

  std::string bytes = read(model + "/model.safetensors");
  bytes[bytes.size() - 9] = static_cast<char>(bytes[bytes.size() - 9] ^ 1);
  write(model + "/model.safetensors", bytes);
  const Strings says = {model + "/model.safetensors: chunk ", "passport.json", "It holds "};
  refused(2, {"generate", model, "--prompt", "a", "--tokens", "2"}, says);
  refused(2, {"verify", model}, says);
  const std::string passport = read(checkpoint("base") + "/passport.json");
  for (const char* const what : {"cut", "edited", "newer", "other"}) {
    copy(checkpoint("base"), path("bad"));
    std::string text = passport, says_it = "edited";
    if (*what == 'c') text.resize(text.size() / 2), says_it = "passport.json";
    if (*what == 'e') text.replace(text.find("\"steps\": ") + 9, 1, "9");
    if (*what == 'n') text.replace(text.find("\"version\": 1") + 11, 1, "2"), says_it = "newer";
    if (*what == 'o') text = read(path("plain") + "/passport.json"), says_it = "another model";
    write(path("bad") + "/passport.json", text);
    refused(2, {"generate", path("bad"), "--prompt", "a", "--tokens", "2"}, {says_it});
    refused(2, {"verify", path("bad")}, {says_it});
  }
}

TEST_F(TrainE2e, SameSeedSameTextWhateverTheThreads) {
  const std::string model = checkpoint("base");
  const auto text = [&](const std::string& seed, const std::string& threads) {
    return ran({"generate",
                model,
                "--prompt",
                "the ferry",
                "--tokens",
                "60",
                "--temperature",
                "1",
                "--seed",
                seed},
               {{"FERRY_THREADS", threads}});
  };
  const std::string first = text("7", "1");
  EXPECT_TRUE(first.starts_with("the ferry"));
  EXPECT_EQ(first, text("7", "1"));
  EXPECT_EQ(first, text("7", "3"));
  EXPECT_NE(first, text("8", "1"));
  std::string ids;
  for (int i = 0; i < 128; ++i) ids += std::to_string(i * 37 % 300) + " ";
  write(root_ / "long.ids", ids + "\n1 2 3\n");
  for (const char* const dtype : {"bf16", "f32"}) {
    std::string logits;
    for (const Environment& way : {Environment{{"FERRY_THREADS", "1"}},
                                   Environment{{"FERRY_THREADS", "3"}},
                                   Environment{{"FERRY_CPU", "plain"}}}) {
      ran({"logits",
           model,
           "--tokens",
           path("long.ids"),
           "--out",
           path("logits"),
           "--dtype",
           dtype},
          way);
      const std::string now = read(root_ / "logits");
      ASSERT_GT(now.size(), 131u * 320 * 4);
      if (logits.empty()) logits = now;
      EXPECT_TRUE(now == logits) << dtype << " " << testing::PrintToString(way);
    }
  }
}

TEST_F(TrainE2e, AFolderThatIsNotARunsIsRefusedAndStaysAsItIs) {
  const auto names = [](const std::string& folder) {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path().filename());
    std::sort(all.begin(), all.end());
    return all;
  };
  const auto refuses = [&](const std::string& folder, const std::string& says) {
    const std::vector<std::string> before = names(folder);
    for (const char* const more : {"--log.every=1", "--resume"})
      refused(2, train("none", {"--checkpoint.dir=" + folder, more}), {folder, says});
    EXPECT_EQ(names(folder), before);
  };
  refuses(path("text"), "holds a dataset");
  refuses(checkpoint("base"), "is a model directory");
  fs::create_directory(root_ / "foreign");
  write(root_ / "foreign/metrics.jsonl", "{\"loss\": 1}\n");
  refuses(path("foreign"), "name another checkpoint.dir");
  // What a run would write anew.
  fs::remove(root_ / "foreign/metrics.jsonl");
  for (const char* const name : {"status.json", "reference.json", "curve.svg"}) {
    const fs::path file = root_ / "foreign" / name;
    write(file, "{\"mine\": 1}");
    refuses(path("foreign"), name);
    EXPECT_EQ(read(file), "{\"mine\": 1}");
    fs::remove(file);
  }
  refuses("/", "is the root of the file system");
  fs::create_directory(root_ / "at home");
  const Ended home = end_of(train("at home"), {{"HOME", path("at home") + "/"}});
  EXPECT_EQ(home.status, 2) << home.output;
  EXPECT_NE(home.output.find("is your home folder"), std::string::npos) << home.output;
  EXPECT_TRUE(fs::is_empty(root_ / "at home"));
  fs::create_symlink("gone", root_ / "dangling");
  refused(2, train("dangling"), {path("dangling"), "is a link to gone, which is not there"});
  const Ended mistyped = end_of(train("mistyped", {"--resume", "--train.steps=2"}));
  EXPECT_NE(mistyped.output.find(path("mistyped") + ": there was no such folder"),
            std::string::npos)
      << mistyped.output;
  EXPECT_NE(mistyped.output.find(path("mistyped") + ": no checkpoint yet"), std::string::npos)
      << mistyped.output;
}

TEST_F(TrainE2e, TheDataOfARunIsNotReplaced) {
  const Strings replace = {"data",
                           "prepare",
                           path("other.txt"),
                           "--split",
                           "line",
                           "--tokenizer",
                           path("tok.json"),
                           "--out",
                           path("other"),
                           "--held-out-bytes",
                           "8K",
                           "--near-duplicate",
                           "2",
                           "--force"};
  Program p(root_ / "holding.log",
            train("holding", {"--data.dir=" + path("other"), "--train.steps=100000"}));
  ASSERT_TRUE(wait_for([&] { return p.ended() || has_checkpoint("holding"); })) << p.output();
  ASSERT_FALSE(p.ended()) << p.output();
  const std::string manifest = read(root_ / "other/manifest.json");
  refused(2,
          replace,
          {path("other") + "/manifest.json: is in use by process ",
           "train " + path("run.toml"),
           std::to_string(worker_of(path("holding")))});
  EXPECT_EQ(read(root_ / "other/manifest.json"), manifest);
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  ran(replace);
}

TEST_F(TrainE2e, PrintConfigShowsThePresetsArchitecture) {
  write(root_ / "preset.toml",
        "[model]\npreset = \"small\"\nhidden_size = 96\n[data]\ndir = \"d\"\n");
  const std::string printed = ran({"train", path("preset.toml"), "--print-config"});
  for (const char* const line : {"\nhidden_size = 96\n",
                                 "\n# num_hidden_layers = 4   as model.preset has it\n",
                                 "\n# vocab_size is not set\n"})
    EXPECT_NE(printed.find(line), std::string::npos) << line << printed;
  EXPECT_EQ(printed.find("(;"), std::string::npos) << printed;
  write(root_ / "printed.toml", printed);
  EXPECT_EQ(ran({"train", path("printed.toml"), "--print-config"}), printed);
  // Nothing need be there to learn from, and what training would refuse is refused.
  ran({"train", path("run.toml"), "--print-config"});
  refused(2,
          {"train", path("run.toml"), "--print-config", "--model.num_experts_per_tok=8"},
          {"num_experts_per_tok must be from 1 to n_routed_experts"});
  refused(2,
          {"train", path("run.toml"), "--print-config", "--model.v_head_dim=65537"},
          {"v_head_dim", "1 to 65536"});
  // Its tokens are random: it needs no data.
  ran({"bench-train",
       "--config",
       path("run.toml"),
       "--model.vocab_size=300",
       "--steps=1",
       "--warmup=0"});
}

/// What a command tells to run can be run as it stands.
TEST_F(TrainE2e, AdviceNamesPathsAsAShellReadsThem) {
  const std::string blank = path("with blank");
  copy(checkpoint("base"), blank);
  for (const char* const ours : {"checksums.json", "verified.json", "generation_config.json"})
    fs::remove(blank + "/" + ours);
  fs::remove_all(blank + "/state");
  fs::remove(blank + "/passport.json");
  const std::string quoted = "'" + blank + "'";
  const Strings generate = {"generate", blank, "--prompt", "a", "--tokens", "2"};
  ran({"passport", blank});
  EXPECT_NE(ran(generate).find("ferry verify " + quoted), std::string::npos);
  const std::string out = path("to convert");
  EXPECT_NE(ran({"convert", blank, "--out", out}).find("ferry passport '" + out + "'"),
            std::string::npos);
  refused(2, {"generate", blank, "--prompt", "a", "--seed", "-1"}, {"--seed", "-1 is below 0"});
  refused(2, {"doctor", "--seed=-1"}, {"--seed", "-1 is below 0"});

  // It said nothing of how to sample, and nothing is said for it.
  write(root_ / "blank.toml", "[model]\ninit = \"" + blank + "\"\n" + kRun);
  ran(train("from blank", {"--train.steps=2"}, "blank.toml"));
  const Json generation =
      Json::parse(read(checkpoint("from blank", 2) + "/generation_config.json"));
  EXPECT_FALSE(generation.contains("temperature") || generation.contains("top_p")) << generation;
  refused(2,
          train("from blank", {"--train.steps=4", "--resume", "--train.seed=9"}, "blank.toml"),
          {"'--model.init=" + checkpoint("from blank", 2) + "'"});

  // More ids than the model has: no passport for that.
  fs::remove(blank + "/passport.json");
  Json tokenizer = Json::parse(read(blank + "/tokenizer.json"));
  for (int id = 300; id < 330; ++id)
    tokenizer["added_tokens"].push_back({{"id", id},
                                         {"content", "<added " + std::to_string(id) + ">"},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", false},
                                         {"special", false}});
  write(blank + "/tokenizer.json", tokenizer.dump());
  refused(2, {"passport", blank}, {blank, "the tokenizer has 330 ids, the model 320"});
}

/// Fills the head of an f32 safetensors file with numbers that are finite and too large: its sums are
/// infinite.
void poison(const fs::path& file) {
  std::string bytes = read(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const Json layout = Json::parse(bytes.substr(sizeof header, header));
  const float huge = 3e38f;
  for (const char* const name : {"lm_head.weight", "model.layers.2.shared_head.head.weight"}) {
    const Json offsets = layout.at(name).at("data_offsets");
    for (size_t i = offsets.at(0); i < offsets.at(1); i += sizeof huge)
      std::memcpy(&bytes[sizeof header + header + i], &huge, sizeof huge);
  }
  write(file, bytes);
}

/// A model whose numbers are not finite, or lead to such: no command passes it off for one.
TEST_F(TrainE2e, NumbersThatAreNotFiniteAreTold) {
  const std::string bad = path("not-finite");
  copy(checkpoint("base"), bad);
  fs::remove_all(bad + "/state");
  for (const char* const ours : {"checksums.json", "passport.json", "verified.json"})
    fs::remove(bad + "/" + ours);
  const std::string whole = read(bad + "/model.safetensors");
  const auto end_with = [&](float value) {  // the last tensor's last elements
    std::string bytes = whole;
    for (size_t i = bytes.size() - 256; i < bytes.size(); i += sizeof value)
      std::memcpy(&bytes[i], &value, sizeof value);
    write(bad + "/model.safetensors", bytes);
  };
  write(root_ / "bad.toml", "[model]\ninit = \"" + bad + "\"\n" + kRun);
  end_with(std::numeric_limits<float>::quiet_NaN());
  const Strings says = {bad + "/model.safetensors: ", "holds a number that is not finite"};
  refused(2, {"passport", bad}, says);
  refused(2, {"generate", bad, "--prompt", "a", "--tokens", "2"}, says);
  refused(2, {"eval", bad, "--data", path("text"), "--no-compressors"}, says);
  refused(2, train("none", {}, "bad.toml"), says);

  // Finite, and too large for what is computed from it.
  write(bad + "/model.safetensors", whole);
  poison(bad + "/model.safetensors");
  refused(1, {"eval", bad, "--data", path("text"), "--no-compressors"}, {"not finite"});
  refused(
      1, train("diverged", {"--train.steps=3"}, "bad.toml"), {"each of the 3 updates was refused"});
}

/// A slip in [model] is told before the data is read, however much that is: here it cannot be.
TEST_F(TrainE2e, WhatIsWrongInModelIsToldBeforeTheDataIsRead) {
  copy(path("text"), path("harmed"));
  fs::resize_file(path("harmed") + "/train-00000.tok", 100);
  refused(2, train("none", {"--data.dir=" + path("harmed")}), {"train-00000.tok"});
  refused(2,
          train("none", {"--data.dir=" + path("harmed"), "--model.n_group=3"}),
          {"[model]", "n_group"});
}

TEST_F(TrainE2e, FineTuningBeginsWhereTheModelEnded) {
  write(root_ / "init.toml", "[model]\ninit = \"" + checkpoint("base") + "\"\n" + kRun);
  ran(train("tuned", {"--train.steps=4"}, "init.toml"));
  const double first = trace("tuned", 4).steps[1].loss;
  const double ended = base_.steps[kSteps].loss;
  EXPECT_NEAR(first, ended, 0.15) << "fresh: " << base_.steps[1].loss;
  refused(2,
          train("none", {"--model.hidden_size=32"}, "init.toml"),
          {"model.init brings its own architecture", ": hidden_size"});
}

/// A worker that must begin anew, because there is no checkpoint yet, begins with the same model.
TEST_F(TrainE2e, ARunBeginsWithOneModelHoweverOften) {
  write(root_ / "begins.toml", "[model]\ninit = \"" + path("begins") + "\"\n" + kRun);
  for (const bool changed : {true, false}) {
    copy(checkpoint("base"), path("begins"));
    const std::string run = changed ? "begins-changed" : "begins-same";
    Program p(root_ / "log",
              train(run, {"--train.steps=200", "--checkpoint.every=200"}, "begins.toml"));
    ASSERT_TRUE(wait_for([&] { return p.ended() || p.said(" 2/200"); })) << p.output();
    if (changed) copy(checkpoint("base", kSteps - 2), path("begins"));  // whole, and another
    ASSERT_GT(worker_of(path(run)), 0) << p.output();
    ::kill(worker_of(path(run)), SIGKILL);
    if (changed) {
      EXPECT_EQ(p.wait(), 2) << p.output();
      EXPECT_TRUE(p.said("was changed since this run began")) << p.output();
    } else {
      const auto begun_twice = [&] {
        const std::string out = p.output();
        return out.find(" 2/200") != out.rfind(" 2/200");
      };
      ASSERT_TRUE(wait_for([&] { return p.ended() || begun_twice(); })) << p.output();
      p.signal(SIGTERM);
      EXPECT_EQ(p.wait(), 0) << p.output();
    }
  }
}

/// A model that somebody else prepared for chat: its templates, its settings and its end tokens go
/// along; what the data says of the end is right from now on.
TEST_F(TrainE2e, FineTuningCarriesWhatTheDirectorySays) {
  const std::string chat = path("chat");
  copy(checkpoint("base"), chat);
  fs::remove_all(chat + "/state");
  for (const char* const ours : {"checksums.json", "passport.json", "verified.json"})
    fs::remove(chat + "/" + ours);
  const auto edit = [&](const std::string& name, const Json& with) {
    Json json = Json::parse(read(chat + "/" + name));
    json.update(with);
    write(chat + "/" + name, json.dump(2));
  };
  edit("config.json", {{"eos_token_id", 2}});
  edit("generation_config.json", {{"eos_token_id", {2, 5}}, {"temperature", 0.25}});
  edit("tokenizer_config.json", {{"eos_token", "<|pad|>"}, {"chat_template", "{{ a }}"}});
  write(chat + "/chat_template.jinja", "{{ a }}");
  fs::create_directories(chat + "/additional_chat_templates");
  write(chat + "/additional_chat_templates/tools.jinja", "{{ b }}");

  write(root_ / "chat.toml", "[model]\ninit = \"" + chat + "\"\n" + kRun);
  const std::string said = ran(train("chatty", {"--train.steps=2"}, "chat.toml"));
  EXPECT_NE(said.find("its texts end with 2 ('<|pad|>'), the data's with 1 ('<|eos|>')"),
            std::string::npos)
      << said;
  ran(train("chatty", {"--train.steps=4", "--resume"}, "chat.toml"));
  for (const int step : {2, 4}) {
    const std::string tuned = checkpoint("chatty", step);
    EXPECT_EQ(Json::parse(read(tuned + "/config.json")).at("eos_token_id"), 1);
    const Json generation = Json::parse(read(tuned + "/generation_config.json"));
    EXPECT_EQ(generation.at("eos_token_id"), Json({1, 2, 5}));
    EXPECT_EQ(generation.at("temperature"), 0.25);
    const Json tokenizer = Json::parse(read(tuned + "/tokenizer_config.json"));
    EXPECT_EQ(tokenizer.at("eos_token"), "<|eos|>");
    EXPECT_EQ(tokenizer.at("chat_template"), "{{ a }}");
    EXPECT_EQ(read(tuned + "/chat_template.jinja"), "{{ a }}");
    EXPECT_EQ(read(tuned + "/additional_chat_templates/tools.jinja"), "{{ b }}");
    const Json files = Json::parse(read(tuned + "/passport.json")).at("statement").at("files");
    for (const char* const name : {"chat_template.jinja", "additional_chat_templates/tools.jinja"})
      EXPECT_TRUE(files.contains(name)) << name;
    const std::string text = ran({"generate", tuned, "--prompt", "a", "--tokens", "2"});
    EXPECT_EQ(text.find("note:"), std::string::npos) << "it contradicts itself: " << text;
  }

  // A template that is broken goes along too, and is told of before the hours of training.
  write(chat + "/chat_template.jinja", "{% for m in messages %}");
  const std::string broken = ran(train("broken", {"--train.steps=2"}, "chat.toml"));
  EXPECT_NE(broken.find(chat + "/chat_template.jinja: line 1"), std::string::npos) << broken;
  EXPECT_NE(broken.find("will refuse to chat"), std::string::npos) << broken;
}

TEST_F(TrainE2e, AnotherTokenizerIsRefused) {
  Json swapped = Json::parse(read(root_ / "tok.json"));  // as many tokens, two of them exchanged
  std::swap(swapped["model"]["vocab"]["a"], swapped["model"]["vocab"]["e"]);
  write(root_ / "tok2.json", swapped.dump());
  ran({"data",
       "prepare",
       path("text.txt"),
       "--split",
       "line",
       "--tokenizer",
       path("tok2.json"),
       "--out",
       path("text2"),
       "--held-out-bytes",
       "8K",
       "--near-duplicate",
       "2"});
  write(root_ / "init2.toml", "[model]\ninit = \"" + checkpoint("base") + "\"\n" + kRun);
  refused(2,
          train("none", {"--data.dir=" + path("text2")}, "init2.toml"),
          {path("text2"),
           "another tokenizer",
           "'a' in one and 'e' in the other",
           "--tokenizer " + checkpoint("base") + "/tokenizer.json"});
  EXPECT_FALSE(fs::exists(path("none"))) << "a refused run left its folder";
  refused(2,
          {"eval", checkpoint("base"), "--data", path("text2"), "--no-compressors"},
          {path("text2"), "another tokenizer"});
  // The same ids and merges, but text is cut in another way.
  Json cut = Json::parse(read(root_ / "tok.json"));
  cut["normalizer"] = {{"type", "NFC"}};
  write(root_ / "tok3.json", cut.dump());
  ran({"data",
       "prepare",
       path("text.txt"),
       "--split",
       "line",
       "--tokenizer",
       path("tok3.json"),
       "--out",
       path("text3"),
       "--held-out-bytes",
       "8K"});
  refused(2,
          train("none", {"--data.dir=" + path("text3")}, "init2.toml"),
          {path("text3"), "another tokenizer", "how text is cut"});
  refused(2,
          {"eval", checkpoint("base"), "--data", path("text3"), "--no-compressors"},
          {path("text3"), "how text is cut", "--tokenizer " + checkpoint("base")});

  // A tokenizer in an older form cannot be compared, and is not carried along as if it could.
  copy(path("base"), path("older"));
  const std::string older = checkpoint("older");
  for (const char* name : {"tokenizer.json", "passport.json", "checksums.json"})
    fs::remove(older + "/" + name);
  write(root_ / "older.toml", "[model]\ninit = \"" + older + "\"\n" + kRun);
  for (const char* name : {"tokenizer.model", "vocab.json"}) {
    write(older + "/" + name, "{}");
    refused(2, train("none", {}, "older.toml"), {older, "older form", "save_pretrained"});
    fs::remove(older + "/" + name);
  }
  EXPECT_FALSE(fs::exists(path("none")));
  copy(path("base"), path("base3"));
  refused(2,
          train("base3", {"--resume", "--data.dir=" + path("text2"), "--train.steps=20"}),
          {"other data"});
}

/// Files that were put into a signed directory later: no command reads them.
TEST_F(TrainE2e, WhatWasNotSignedIsNotRead) {
  ran({"keygen", path("sign.key")});
  ran(train("sealed", {"--checkpoint.key=" + path("sign.key"), "--train.steps=2"}));
  const std::string model = checkpoint("sealed", 2);
  fs::remove(model + "/checksums.json");
  write(root_ / "sealed.toml", "[model]\ninit = \"" + model + "\"\n" + kRun);
  const Strings generate = {"generate", model, "--prompt", "a", "--tokens", "2"};
  const Strings verify = {"verify", model, "--quick", "--key", path("sign.key.pub")};
  ran(generate);
  ran(verify);
  for (const char* const name : {"special_tokens_map.json", "chat_template.jinja"}) {
    write(model + "/" + name, "{}");
    const Strings says = {model + "/" + name, "does not list it"};
    refused(2, generate, says);
    refused(2, {"eval", model, "--text", path("ids"), "--no-compressors"}, says);
    refused(2, train("none", {"--train.steps=4"}, "sealed.toml"), says);
    refused(2, verify, says);
    refused(2, {"passport", model, "--key", path("sign.key")}, says);
    fs::remove(model + "/" + name);
  }
  // What belongs there after all is listed by whoever has the key.
  const std::string added = path("added");
  copy(model, added);
  write(added + "/chat_template.jinja", "{}");
  const Strings add = {"passport", added, "--add"};
  const auto with_key = [&](const std::string& key) {
    Strings all = add;
    all.insert(all.end(), {"--key", path(key)});
    return all;
  };
  refused(2, {"generate", added, "--prompt", "a", "--tokens", "2"}, {"ferry passport DIR --add"});
  ran({"keygen", path("other.key")});
  refused(2, add, {"only who has its secret key"});
  refused(2, with_key("other.key"), {"only who has its secret key"});
  const std::string listed = ran(with_key("sign.key"));
  EXPECT_NE(listed.find("chat_template.jinja: is listed now"), std::string::npos) << listed;
  ran({"generate", added, "--prompt", "a", "--tokens", "2"});
  ran({"verify", added, "--quick", "--key", path("sign.key.pub")});
  write(added + "/chat_template.jinja", "[]");
  refused(2, with_key("sign.key"), {"chat_template.jinja", "is not the file that"});
  const std::string tokenizer = model + "/tokenizer.json", good = read(tokenizer);
  std::string bad = good;
  bad[bad.find("\"special\": true") + 11] = 'T';
  write(tokenizer, bad);
  refused(2, generate, {tokenizer});
  refused(2, {"tokenizer", "encode", "--tokenizer", tokenizer, "a"}, {tokenizer, "passport.json"});
  refused(2,
          {"data", "prepare", path("text.txt"), "--tokenizer", tokenizer, "--out", path("none")},
          {tokenizer, "passport.json"});
  fs::remove(tokenizer);
  refused(2, generate, {tokenizer, "missing"});
  write(tokenizer, good);
  ran(verify);
  fs::remove(model + "/passport.json");
  refused(2, verify, {"nobody signed it"});
  refused(2, {"tokenizer", "encode", "--tokenizer", model, "a"}, {"is a folder", tokenizer});
}

TEST_F(TrainE2e, NonFiniteUpdatesAreRefused) {
  copy(checkpoint("base"), path("poisoned"));
  for (const char* guard : {"checksums.json", "passport.json"})
    fs::remove(path("poisoned/") + guard);
  poison(root_ / "poisoned/model.safetensors");
  const std::string before = read(root_ / "poisoned/model.safetensors");
  write(root_ / "nan.toml", "[model]\ninit = \"" + path("poisoned") + "\"\n" + kRun);
  const Ended e = end_of(train("nan", {"--train.steps=100"}, "nan.toml"));
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_NE(e.output.find("step 1: update refused: not finite"), std::string::npos) << e.output;
  EXPECT_NE(e.output.find("20 updates in a row were refused"), std::string::npos) << e.output;
  EXPECT_EQ(e.output.find("step 21:"), std::string::npos) << e.output;
  EXPECT_TRUE(read(checkpoint("nan", 18) + "/model.safetensors") == before)
      << "a refused update changed the weights";
  EXPECT_TRUE(read(root_ / "poisoned/model.safetensors") == before);
}

}  // namespace
