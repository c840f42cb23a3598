// A training run among people, terminals, schedulers and disks: what is slow is waited for, what
// hangs is ended, what asks it to stop lets it save, what no restart mends ends it at once, and what
// is changed between two parts of it is told or refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/terminal.h"
#include "on_terminal.h"
#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

const Strings kEndless = {
    "--train.steps=100000", "--checkpoint.every=0", "--train.evaluate_every=0"};

class RunE2e : public Trains {
 protected:
  static void SetUpTestSuite() { begin_folder(); }

  static std::vector<Json> metrics(const std::string& run) {
    std::vector<Json> steps;
    std::istringstream lines(read(path(run) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (Json j = Json::parse(line); j.at("kind") == "step") steps.push_back(std::move(j));
    return steps;
  }
  static Strings names_in(const std::string& folder) {
    Strings names;
    std::error_code none;
    for (const auto& entry : fs::recursive_directory_iterator(folder, none))
      names.push_back(entry.path().string());
    return names;
  }
  static void expect_nothing_half_written(const std::string& run) {
    for (const std::string& name : names_in(path(run)))
      EXPECT_EQ(name.find(".tmp"), std::string::npos) << name;
    const std::string lines = read(path(run) + "/metrics.jsonl");
    EXPECT_TRUE(lines.empty() || lines.ends_with("\n")) << "half a record in " << run;
  }
  static std::string in_shell(const Strings& args) {
    std::string command = FERRY_PROGRAM;
    for (const std::string& a : args) command += " '" + a + "'";
    return command;
  }
  static Strings with(Strings list, const Strings& more) {
    list.insert(list.end(), more.begin(), more.end());
    return list;
  }
};

// --- Patience ------------------------------------------------------------------------------------

TEST_F(RunE2e, ASaveLongerThanTheStepsPatienceSurvives) {
  // Syncs of a slow disk: one that is silent for longer than a step may be, and all others slow.
  const std::string output = ran(train("slow",
                                       {"--train.steps=4",
                                        "--checkpoint.every=2",
                                        "--supervisor.step_patience_s=3",
                                        "--supervisor.patience_intervals=1",
                                        "--supervisor.evaluate_patience_s=3"}),
                                 {{"FERRY_FAULT", "file.sync:4:delay7000,file.sync:*:delay300"}});
  EXPECT_EQ(output.find("starting again"), std::string::npos) << output;
  EXPECT_TRUE(fs::exists(checkpoint("slow", 2)));
  EXPECT_TRUE(fs::exists(checkpoint("slow", 4)));
}

TEST_F(RunE2e, AHangIsFoundInEachPhase) {
  const struct {
    const char* fault;
    const char* says;
  } cases[] = {{"beat.start:2:hang", "while starting"},
               {"beat.train:3:hang", "while training"},
               {"beat.evaluate:1:hang", "while evaluating"},
               {"beat.save:3:hang", "while saving"}};
  for (const auto& c : cases) {
    const std::string run = std::string("hang") + c.says;
    const Ended e = end_of(train(run,
                                 {"--supervisor.restarts=0",
                                  "--supervisor.start_patience_s=6",
                                  "--supervisor.step_patience_s=6",
                                  "--supervisor.evaluate_patience_s=6",
                                  "--supervisor.save_patience_s=6"}),
                           {{"FERRY_FAULT", c.fault}});
    EXPECT_EQ(e.status, 3) << e.output;
    EXPECT_NE(e.output.find("no sign of life from the worker for 6"), std::string::npos)
        << e.output;
    EXPECT_NE(e.output.find(c.says), std::string::npos) << e.output;
  }
}

TEST_F(RunE2e, WhatFailsAfterASaveIsToldAndTheRunGoesOn) {
  const std::string output =
      ran(train("prune", {"--checkpoint.keep_last=1"}), {{"FERRY_FAULT", "file.remove:*:eacces"}});
  EXPECT_NE(output.find("warning    "), std::string::npos) << output;
  EXPECT_TRUE(fs::exists(checkpoint("prune")));
}

/// Ctrl-S, a pager that stands, a laptop asleep at the other end of ssh: what is said waits, or is
/// left out, and the run goes on.
TEST_F(RunE2e, OutputThatStandsStillCostsNoWork) {
  const Strings more = {"--train.steps=400",
                        "--checkpoint.every=100",
                        "--train.evaluate_every=0",
                        "--supervisor.step_patience_s=2",
                        "--supervisor.patience_intervals=1",
                        "--supervisor.evaluate_patience_s=2",
                        "--supervisor.save_patience_s=2"};
  OnTerminal p(train("paused", more));
  ASSERT_TRUE(p.trains()) << p.output();
  p.type("\x13");  // Ctrl-S
  EXPECT_TRUE(wait_for([&] { return fs::exists(checkpoint("paused", 400)); }));
  sleep_ms(4000);  // longer than the patience: the end of the run waits for its reader, alive
  EXPECT_FALSE(p.ended());
  p.type("\x11");  // Ctrl-Q
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("\"step\":400")) << p.output();
  EXPECT_FALSE(p.said("no sign of life")) << p.output();

  // A pipe that nobody empties; a worker that dies meanwhile is followed by another all the same.
  const std::string pipe = path("standing");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  ::fcntl(reader, F_SETPIPE_SZ, 4096);
  Program q(pipe, train("piped", with(more, {"--train.steps=2000", "--checkpoint.every=500"})));
  ASSERT_TRUE(wait_for([&] { return fs::exists(checkpoint("piped", 500)); }));
  ::kill(worker_of(path("piped")), SIGKILL);
  EXPECT_TRUE(wait_for([&] { return fs::exists(checkpoint("piped", 2000)); }));
  std::string said;
  char block[4096];
  ASSERT_TRUE(wait_for([&] {
    for (ssize_t n; (n = ::read(reader, block, sizeof block)) > 0;)
      said.append(block, static_cast<size_t>(n));
    return q.ended();
  }));
  ::close(reader);
  EXPECT_EQ(q.wait(), 0) << said;
  EXPECT_NE(said.find("lines were left out"), std::string::npos) << said;
  EXPECT_EQ(said.find("no sign of life"), std::string::npos) << said;
}

/// Lustre mounted without flock, say.
TEST_F(RunE2e, AFileSystemWithoutLocksIsUsedAndTold) {
  const Environment no_locks = {{"FERRY_FAULT", "file.lock:*:enosys"}};
  for (const Strings& command : {train("unlocked", {"--train.steps=4"}),
                                 Strings{"data",
                                         "prepare",
                                         path("text.txt"),
                                         "--split",
                                         "line",
                                         "--tokenizer",
                                         path("tok.json"),
                                         "--out",
                                         path("text3")}}) {
    const std::string output = ran(command, no_locks);
    EXPECT_NE(output.find("its file system cannot lock files"), std::string::npos) << output;
  }
  EXPECT_TRUE(fs::exists(checkpoint("unlocked", 4)));
}

// --- Signals -------------------------------------------------------------------------------------

TEST_F(RunE2e, EachSignalSavesAndEnds) {
  const struct {
    const char* what;
    std::function<void(OnTerminal&)> send;
  } ways[] = {{"Ctrl-C", [](OnTerminal& p) { p.type("\x03"); }},
              {"Ctrl-backslash", [](OnTerminal& p) { p.type("\x1c"); }},
              {"TERM", [](OnTerminal& p) { p.signal(SIGTERM); }},
              {"HUP", [](OnTerminal& p) { p.signal(SIGHUP); }},
              {"USR1", [](OnTerminal& p) { p.signal(SIGUSR1); }},
              {"TERM to all", [](OnTerminal& p) { p.signal_group(SIGTERM); }},
              {"HUP to all", [](OnTerminal& p) { p.signal_group(SIGHUP); }},
              {"USR1 to all", [](OnTerminal& p) { p.signal_group(SIGUSR1); }},
              {"USR2 to all", [](OnTerminal& p) { p.signal_group(SIGUSR2); }},
              {"XCPU to all", [](OnTerminal& p) { p.signal_group(SIGXCPU); }},
              {"TERM twice at once", [](OnTerminal& p) {
                 p.signal_group(SIGTERM);
                 p.signal(SIGTERM);
               }}};
  int number = 0;
  for (const auto& way : ways) {
    const std::string run = "signal" + std::to_string(number++);
    OnTerminal p(train(run, kEndless));
    ASSERT_TRUE(p.trains()) << way.what << "\n" << p.output();
    way.send(p);
    EXPECT_EQ(p.wait(), 0) << way.what << "\n" << p.output();
    EXPECT_TRUE(p.said("stopped    after step")) << way.what << "\n" << p.output();
    EXPECT_TRUE(has_checkpoint(run)) << way.what;
  }
}

TEST_F(RunE2e, ATerminalThatClosesLetsItSave) {
  OnTerminal p(train("closed", kEndless));
  ASSERT_TRUE(p.trains()) << p.output();
  p.hang_up();
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(has_checkpoint("closed"));
  expect_nothing_half_written("closed");
}

TEST_F(RunE2e, WhoReadsMayLeaveBeforeItsEnd) {
  const std::string command = "{ " + in_shell(train("unread")) + " 2>" + path("unread.log") +
                              "; echo $? >" + path("unread.status") + "; } | true";
  EXPECT_EQ(std::system(command.c_str()), 0);
  EXPECT_EQ(read(path("unread.status")), "0\n") << read(path("unread.log"));
  EXPECT_TRUE(fs::exists(checkpoint("unread")));
  const std::string said = read(path("unread.log"));  // where to look instead, once
  EXPECT_NE(said.find("the run goes on"), std::string::npos) << said;
  EXPECT_NE(said.find("ferry status " + path("unread")), std::string::npos) << said;
  EXPECT_EQ(said.find("goes on"), said.rfind("goes on")) << said;
}

/// Who closed standard output wants nothing of a run's, but what is asked for is not written there in silence.
TEST_F(RunE2e, AClosedOutputIsNoSuccessOfWhatIsPrinted) {
  const auto closed = [](const Strings& args) {
    const std::string command = in_shell(args) + " >&- 2>" + path("closed.log");
    return status_of(std::system(command.c_str()));
  };
  for (const Strings& args :
       {Strings{"tokenizer", "encode", "--tokenizer", path("tok.json"), "a river"},
        Strings{"tokenizer", "decode", "--tokenizer", path("tok.json"), "5"},
        Strings{"ops"}}) {
    EXPECT_NE(closed(args), 0) << testing::PrintToString(args);
    EXPECT_FALSE(read(path("closed.log")).empty()) << testing::PrintToString(args);
  }
  EXPECT_EQ(closed({"tokenizer", "encode", "--tokenizer", path("tok.json"), "a river"}), 3);
  EXPECT_NE(read(path("closed.log")).find("standard output: is closed"), std::string::npos);
  // What leaves files has done what it was asked for, and could not do it again.
  const std::string model = path("unprinted-model");
  for (const auto& [args, file] : std::vector<std::pair<Strings, std::string>>{
           {train("unprinted", {"--train.steps=2"}), checkpoint("unprinted", 2) + "/config.json"},
           {{"convert", checkpoint("unprinted", 2), "--out", model}, model + "/config.json"},
           {{"passport", model}, model + "/passport.json"},
           {{"verify", model, "--html", path("unprinted.html")}, path("unprinted.html")},
           {{"keygen", path("unprinted.key")}, path("unprinted.key")},
           {{"tasks", "sum", "--count", "3", "--out", path("unprinted.jsonl")},
            path("unprinted.jsonl")},
           {{"tokenizer",
             "train",
             "--vocab",
             "270",
             "--out",
             path("unprinted.json"),
             path("text.txt")},
            path("unprinted.json")},
           {{"data",
             "prepare",
             path("text.txt"),
             "--split",
             "line",
             "--tokenizer",
             path("tok.json"),
             "--out",
             path("unprinted-text")},
            path("unprinted-text") + "/manifest.json"}}) {
    EXPECT_EQ(closed(args), 0) << testing::PrintToString(args) << read(path("closed.log"));
    EXPECT_TRUE(fs::exists(file)) << file;
  }
  EXPECT_EQ(closed({"verify", model, "--json"}), 3) << read(path("closed.log"));
}

TEST_F(RunE2e, AFullDiskUnderTheLogIsNoSuccess) {
  const std::string command = in_shell(train("unlogged")) + " >/dev/full 2>" + path("unlogged.log");
  EXPECT_EQ(status_of(std::system(command.c_str())), 3) << read(path("unlogged.log"));
  EXPECT_NE(read(path("unlogged.log")).find("standard output"), std::string::npos);
  EXPECT_TRUE(fs::exists(checkpoint("unlogged")));
}

/// Neither the supervisor nor a worker has more descriptors after a restart.
TEST_F(RunE2e, ALimitOfOpenFilesIsToldAtOnce) {
  const std::string log = path("descriptors.log");
  std::string none_open;  // but the first three, whatever this process was given
  for (int fd = 3; fd <= 9; ++fd) none_open += " " + std::to_string(fd) + ">&-";
  for (const int limit : {6, 8}) {
    const std::string command = "(exec" + none_open + "; ulimit -n " + std::to_string(limit) +
                                "; exec " + in_shell(train("descriptors")) + ") >" + log + " 2>&1";
    EXPECT_EQ(status_of(std::system(command.c_str())), 3) << limit << ": " << read(log);
    EXPECT_NE(read(log).find("ulimit -n 1024"), std::string::npos) << limit << ": " << read(log);
    EXPECT_EQ(read(log).find("starting again"), std::string::npos) << limit << ": " << read(log);
    EXPECT_EQ(read(log).find("a bug"), std::string::npos) << limit << ": " << read(log);
  }
}

TEST_F(RunE2e, ALimitOfCpuTimeLetsItSave) {
  OnTerminal p(train("cpu", kEndless), {.cpu_s = 8});
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(p.said("stopped    after step")) << p.output();
  EXPECT_TRUE(has_checkpoint("cpu"));
}

TEST_F(RunE2e, WhatIsIgnoredAtTheStartStaysIgnored) {
  // As `nohup` starts it, and a shell its background jobs.
  OnTerminal p(train("nohup", kEndless), {.ignored = {SIGHUP, SIGINT, SIGQUIT}});
  ASSERT_TRUE(p.trains()) << p.output();
  for (const int s : {SIGHUP, SIGINT, SIGQUIT}) p.signal_group(s);
  p.type("\x03");
  sleep_ms(700);
  EXPECT_FALSE(p.ended()) << p.output();
  EXPECT_FALSE(p.said("saves and leaves")) << p.output();
  p.hang_up();
  sleep_ms(700);
  ASSERT_FALSE(p.ended()) << "the terminal closed, and it ended";
  EXPECT_FALSE(has_checkpoint("nohup"));
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(has_checkpoint("nohup"));
}

TEST_F(RunE2e, ASecondSignalEndsItAWarningAndItsEndDoNot) {
  const Environment slow = {{"FERRY_FAULT", "file.sync:*:delay400"}};
  {
    OnTerminal p(train("twice", kEndless), {.environment = slow});
    ASSERT_TRUE(p.trains()) << p.output();
    p.type("\x03");
    ASSERT_TRUE(wait_for([&] { return p.said("saves and leaves"); })) << p.output();
    sleep_ms(400);
    p.type("\x03");
    EXPECT_EQ(p.wait(), 3) << p.output();
    EXPECT_TRUE(p.said("without saving")) << p.output();
    EXPECT_FALSE(has_checkpoint("twice"));
  }
  OnTerminal p(train("warned", kEndless), {.environment = slow});
  ASSERT_TRUE(p.trains()) << p.output();
  p.signal_group(SIGUSR1);
  ASSERT_TRUE(wait_for([&] { return p.said("saves and leaves"); })) << p.output();
  sleep_ms(400);
  p.signal_group(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_TRUE(has_checkpoint("warned"));
}

TEST_F(RunE2e, AStopWhileItStartsLosesNothing) {
  Program p(root_ / "log", train("early"), {{"FERRY_FAULT", "beat.start:1:delay3000"}});
  sleep_ms(1000);
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0) << p.output();
  EXPECT_FALSE(fs::exists(path("early"))) << "a run that made no step left its folder";
}

TEST_F(RunE2e, TheHintIsTheWholeCommand) {
  const std::string run = "it's a \"run\" $HOME";
  // Slow steps: the signal comes before its end.
  const Environment slow = {{"FERRY_FAULT", "beat.train:*:delay50"}};
  OnTerminal p(train(run, {"--train.steps=400", "--optimizer.lr=0.002", "--checkpoint.every=0"}),
               {.environment = slow});
  ASSERT_TRUE(p.trains()) << p.output();
  p.signal(SIGTERM);
  ASSERT_EQ(p.wait(), 0) << p.output();
  const std::string says = "go on with: ";
  const size_t at = p.output().find(says);
  ASSERT_NE(at, std::string::npos) << p.output();
  const size_t begin = at + says.size();
  const std::string command = p.output().substr(begin, p.output().find('\n', begin) - begin);
  const std::string log = path("again.log");
  EXPECT_EQ(std::system((command + " > " + log + " 2>&1").c_str()), 0) << command << "\n"
                                                                       << read(log);
  EXPECT_NE(read(log).find("resume     from " + path(run)), std::string::npos) << read(log);
  EXPECT_EQ(read(log).find("changed "), std::string::npos) << read(log);
  EXPECT_TRUE(fs::exists(checkpoint(run, 400)));
}

// --- What no restart mends -----------------------------------------------------------------------

TEST_F(RunE2e, WhatNoRestartMendsEndsItAtOnce) {
  const struct {
    const char* fault;
    const char* says;
  } cases[] = {{"file.create:30:eacces", "permission"},
               {"file.mkdir:2:erofs", "read-only"},
               {"file.rename:2:erofs", "read-only"},
               {"file.write:60:efbig", "ulimit -f"},
               {"file.write:120:efbig", "ulimit -f"}};
  for (const auto& c : cases) {
    fs::remove_all(path("mend"));
    const Ended e = end_of(train("mend"), {{"FERRY_FAULT", c.fault}});
    EXPECT_EQ(e.status, 3) << c.fault << "\n" << e.output;
    EXPECT_EQ(e.output.find("starting again"), std::string::npos) << c.fault << "\n" << e.output;
    EXPECT_NE(e.output.find(c.says), std::string::npos) << c.fault << "\n" << e.output;
    expect_nothing_half_written("mend");
  }
  refused(2, train("none", {"--checkpoint.dir=/proc/no/such"}), {"/proc/no"});
  refused(2, train("none", {"--checkpoint.dir=" + path("run.toml")}), {path("run.toml")});
}

TEST_F(RunE2e, AFileSizeLimitIsSeenBeforeItIsMet) {
  OnTerminal p(train("limited"), {.file_bytes = 100 << 10});
  EXPECT_EQ(p.wait(), 3) << p.output();
  EXPECT_TRUE(p.said("ulimit -f")) << p.output();
  EXPECT_FALSE(p.said("starting again")) << p.output();
  EXPECT_FALSE(fs::exists(path("limited"))) << "a refused run left its folder";
}

// --- Going on with other settings ----------------------------------------------------------------

TEST_F(RunE2e, StepsOfAnotherSizeGoOnWhereTheEarlierOnesEnded) {
  // Weights that hardly move, so that losses tell which tokens were seen.
  const Strings still = {"--optimizer.lr=1e-12",
                         "--train.compute=f32",
                         "--checkpoint.every=4",
                         "--train.evaluate_every=0",
                         "--train.mtp_weight=0",
                         "--train.bias_update_speed=0"};
  ran(train("whole", with(still, {"--train.steps=12"})));
  ran(train("grown", with(still, {"--train.steps=4"})));
  const std::string output = ran(
      train("grown", with(still, {"--train.steps=8", "--train.tokens_per_step=512", "--resume"})));
  EXPECT_NE(output.find("changed    train.tokens_per_step: 256 -> 512"), std::string::npos)
      << output;
  const std::vector<Json> whole = metrics("whole"), grown = metrics("grown");
  ASSERT_EQ(whole.size(), 12u);
  ASSERT_EQ(grown.size(), 8u);
  for (size_t i = 0; i < 4; ++i) {
    const double expected =
        (whole[4 + 2 * i].at("loss").get<double>() + whole[5 + 2 * i].at("loss").get<double>()) / 2;
    // f32 sums of 512 losses near 6: some 1e-6 of rounding. Other tokens would differ by 1e-2.
    EXPECT_NEAR(grown[4 + i].at("loss").get<double>(), expected, 1e-4) << "step " << 5 + i;
    EXPECT_EQ(grown[4 + i].at("tokens"), 4 * 256 + static_cast<int>(i + 1) * 512);
  }
  const Json passport = Json::parse(read(checkpoint("grown", 8) + "/passport.json"));
  EXPECT_EQ(passport.at("statement").at("training").at("tokens"), 4 * 256 + 4 * 512);
  // And smaller ones go on where larger ones ended.
  ran(train("shrunk", with(still, {"--train.steps=4", "--train.tokens_per_step=512"})));
  ran(train("shrunk", with(still, {"--train.steps=8", "--resume"})));
  const std::vector<Json> shrunk = metrics("shrunk");
  ASSERT_EQ(shrunk.size(), 8u);
  for (size_t i = 4; i < 8; ++i) {
    EXPECT_NEAR(shrunk[i].at("loss").get<double>(), whole[4 + i].at("loss").get<double>(), 1e-4);
    EXPECT_EQ(shrunk[i].at("tokens"), 4 * 512 + static_cast<int>(i - 3) * 256);
  }
}

TEST_F(RunE2e, WhatWasLearntCannotBeChanged) {
  ran(train("fixed", {"--train.steps=2"}));
  const auto refuses = [](const Strings& change, const Strings& says) {
    refused(2, train("fixed", with({"--train.steps=4", "--resume"}, change)), says);
  };
  const Strings what_to_do = {checkpoint("fixed", 2), "model.init=" + checkpoint("fixed", 2)};
  refuses({"--model.hidden_size=64"},
          with(what_to_do, {"model.hidden_size is 32 there, 64 in the settings"}));
  refuses({"--model.rms_norm_eps=1e-5"}, with(what_to_do, {"model.rms_norm_eps"}));
  refuses({"--train.seed=7"}, with(what_to_do, {"train.seed was 1 so far, and is 7 now"}));
  refuses({"--optimizer.kind=muon"}, with(what_to_do, {"optimizer.kind"}));
  // All that stands in the way at once; and the way out is one.
  refuses({"--optimizer.kind=muon", "--train.seed=7"},
          {"train.seed was 1 so far, and is 7 now; optimizer.kind was",
           "without what else [model] says"});
  const std::string base = checkpoint("fixed", 2);
  write(root_ / "init.toml", "[model]\ninit = \"" + base + "\"\n" + kRun);
  refused(2,
          train("fixed", {"--train.steps=4", "--resume"}, "init.toml"),
          with(what_to_do, {"model.init"}));
  // The same architecture in other words is no change; what only follows is told.
  write(root_ / "same.toml", "[model]\nconfig = \"" + base + "/config.json\"\n" + kRun);
  const std::string output = ran(train(
      "fixed",
      {"--train.steps=4", "--resume", "--train.clip=0.5", "--checkpoint.every=1", "--log.every=3"},
      "same.toml"));
  EXPECT_NE(output.find("changed    train.clip: 1.0 -> 0.5"), std::string::npos) << output;
  EXPECT_EQ(output.find("changed    checkpoint.every"), std::string::npos) << output;
  EXPECT_EQ(output.find("changed    model"), std::string::npos) << output;
  EXPECT_EQ(metrics("fixed").size(), 4u);
}

TEST_F(RunE2e, TheBenchmarkTrainsAsTheSettingsSay) {
  const auto bench = [](const Strings& more) {
    const std::string output = ran(with({"bench-train",
                                         "--config",
                                         path("run.toml"),
                                         "--data.dir=none",
                                         "--model.vocab_size=320",
                                         "--steps",
                                         "4",
                                         "--warmup",
                                         "0"},
                                        more));
    return Json::parse(output.substr(
        output.rfind("\n{") == std::string::npos ? output.find('{') : output.rfind("\n{") + 1));
  };
  const Json plain = bench({}), absorbed = bench({"--train.mla_form=absorbed"});
  EXPECT_EQ(plain.at("mla_form"), "expanded");
  EXPECT_EQ(absorbed.at("mla_form"), "absorbed");
  EXPECT_NE(plain.at("live_mb"), absorbed.at("live_mb"));  // they keep other activations
  EXPECT_EQ(plain.at("mtp_steps"), 4);
  EXPECT_EQ(bench({"--train.mtp_every=2"}).at("mtp_steps"), 2);
}

// --- Terminals -----------------------------------------------------------------------------------

/// The longest stretch between two moves to the beginning of a line, in columns.
int widest_live_line(const std::string& output) {
  int widest = 0;
  for (size_t at = 0; (at = output.find('\r', at)) != std::string::npos; ++at) {
    const size_t end = output.find_first_of("\r\n", at + 1);
    if (end == std::string::npos) break;
    if (output[end] == '\r')
      widest = std::max(widest, ferry::display_width(output.substr(at + 1, end - at - 1)));
  }
  return widest;
}

TEST_F(RunE2e, TheLiveLineFitsTheWindowAlsoAfterItChanges) {
  OnTerminal p(train("window", kEndless));
  ASSERT_TRUE(p.trains()) << p.output();
  ASSERT_TRUE(wait_for([&] { return p.output().size() > 8000; }));
  const size_t first = p.output().size();
  EXPECT_LE(widest_live_line(p.output()), 79);
  EXPECT_GT(widest_live_line(p.output()), 40);
  p.resize(34);
  sleep_ms(200);  // what was being drawn is
  const size_t second = p.output().size();
  ASSERT_TRUE(wait_for([&] { return p.output().size() > second + 400; }));
  EXPECT_GT(second, first);
  EXPECT_LE(widest_live_line(p.output().substr(second)), 33);
  EXPECT_NE(p.output().find('\x1b'), std::string::npos) << "no colours";
  p.signal(SIGTERM);
  EXPECT_EQ(p.wait(), 0);
}

TEST_F(RunE2e, NoEscapesWhereNobodyUnderstandsThemOrWantsThem) {
  ran(train("plain"));
  const std::string model = checkpoint("plain");
  const Strings commands[] = {
      train("escapes"),
      {"verify", model, "--quick"},
      {"eval", model, "--data", path("text"), "--no-compressors"},
      {"tokenizer", "train", "--vocab", "300", "--out", path("tok2.json"), path("text.txt")},
      {"data",
       "prepare",
       path("text.txt"),
       "--split",
       "line",
       "--tokenizer",
       path("tok.json"),
       "--out",
       path("text2"),
       "--held-out-bytes",
       "8K"},
      {"doctor", "--quick", "--device", "cpu"}};
  for (const Strings& command : commands) {
    for (const Environment& e : {Environment{{"TERM", "dumb"}},
                                 Environment{{"NO_COLOR", "1"}},
                                 Environment{{"TERM", ""}}}) {
      for (const char* made : {"escapes", "text2", "tok2.json"}) fs::remove_all(path(made));
      if (command[0] == "doctor" && !e.contains("NO_COLOR")) continue;  // it takes a while
      OnTerminal p(command, {.environment = e});
      const int status = p.wait();
      EXPECT_TRUE(status == 0 || command[0] == "doctor") << command[0] << "\n" << p.output();
      EXPECT_EQ(p.output().find('\x1b'), std::string::npos) << command[0] << "\n" << p.output();
      if (!e.contains("NO_COLOR")) {
        EXPECT_EQ(p.output().find('\r'), std::string::npos) << command[0] << "\n" << p.output();
      }
    }
  }
}

}  // namespace
