// The built program making tasks, scoring a model on them, and letting it learn from them: what a
// run that was interrupted, or killed, ends in is what an uninterrupted one ends in.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr const char* kLearn = R"([train]
steps = 4
micro_batch_tokens = 512
evaluate_every = 2
[rl]
groups_per_step = 3
group_size = 4
minibatches = 3
tokens_max = 12
kl = "k3"
kl_weight = 0.01
reference_every = 3
dynamic_sampling = 1
reward_script = 1
reward_format = 0.5
[optimizer]
lr = 3e-3
[schedule]
warmup_steps = 1
[checkpoint]
every = 1
keep_last = 1
[log]
every = 1
)";

class RlE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("base"));
    begin_otherwise(checkpoint("base"));
    write(root_ / "rl.toml", kLearn);
    tasks("held", {"--count", "6"});
    tasks("learn", {"--count", "10", "--without", path("held")});
  }
  /// Model "init", as somebody else might have made it: its texts do not begin with its begin token, they end
  /// with one of two tokens, and the tokenizer's files name but the second one.
  static void begin_otherwise(const std::string& from) {
    fs::copy(from, path("init"), fs::copy_options::recursive);
    fs::remove_all(path("init") + "/state");
    for (const char* const not_there :
         {"checksums.json", "passport.json", "verified.json", "generation_config.json"})
      fs::remove(path("init") + "/" + not_there);
    const auto edit = [&](const std::string& name, const Json& with) {
      Json json = Json::parse(read(path("init") + "/" + name));
      json.update(with);
      write(path("init") + "/" + name, json.dump());
    };
    edit("config.json", {{"eos_token_id", {1, 2}}});
    edit("tokenizer.json", {{"post_processor", nullptr}});
    edit("tokenizer_config.json", {{"add_bos_token", false}, {"eos_token", "<|pad|>"}});
  }
  static void tasks(const std::string& name, const Strings& more) {
    Strings args = {"tasks", "sum", "--out", path(name)};
    if (std::find(more.begin(), more.end(), "--difficulty") == more.end())
      args.insert(args.end(), {"--difficulty", "1"});
    args.insert(args.end(), more.begin(), more.end());
    ran(args);
  }
  static Strings learn(const std::string& run, const Strings& more = {}) {
    Strings args = {"rl",
                    path("rl.toml"),
                    "--model.init=" + path("init"),
                    "--rl.tasks=" + path("learn"),
                    "--rl.held_out=" + path("held"),
                    "--checkpoint.dir=" + path(run)};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static Json last_line(const std::string& output) {
    std::string last;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) last = line;
    return Json::parse(last);
  }
  static std::string weights(const std::string& run, int step = 4) {
    return read(checkpoint(run, step) + "/model.safetensors");
  }
  /// The steps whose held-out score the run's log has.
  static std::vector<int> evaluated(const std::string& run) {
    std::vector<int> steps;
    std::istringstream lines(read(path(run) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const Json record = Json::parse(line); record["kind"] == "held_out")
        steps.push_back(record["step"]);
    return steps;
  }
  static void killed(const std::string& run, const std::string& fault) {
    const Ended e = end_of(learn(run, {"--worker"}), {{"FERRY_FAULT", fault + ":kill"}});
    EXPECT_EQ(e.status, kKilled) << "not killed at " << fault << "\n" << e.output;
  }
};

TEST_F(RlE2e, LearnsTheSameBitsHoweverItIsInterrupted) {
  const Json whole = last_line(ran(learn("whole")));
  EXPECT_EQ(whole["steps"], 4);
  EXPECT_EQ(whole["logprob_mismatches"], 0);
  EXPECT_GT(whole["logprobs_compared"], 40);
  EXPECT_TRUE(whole.contains("score_before") && whole.contains("score_after"));
  const std::string expected = weights("whole");
  ASSERT_FALSE(expected.empty());
  EXPECT_EQ(evaluated("whole"), (std::vector<int>{0, 2, 4}));
  EXPECT_NE(read(path("whole") + "/samples/step-00000004.txt"), "");
  EXPECT_NE(read(path("whole") + "/curve.svg").find("Reward"), std::string::npos);

  // A worker dies in each part of a step, and of those around it, and is gone on with: while answers are
  // drawn and judged, between the updates of one step, while its evaluation is written down, while it saves.
  for (const char* fault : {"rl.rollout:45",
                            "rl.judge:3",
                            "rl.score:9",
                            "rl.update:5",
                            "file.rename:1",
                            "file.rename:4",
                            "beat.save:5"}) {
    const std::string run = std::string("killed-") + fault;
    killed(run, fault);
    const Json resumed = last_line(ran(learn(run, {"--resume"})));
    EXPECT_EQ(weights(run), expected) << "killed at " << fault;
    EXPECT_EQ(resumed["score_before"], whole["score_before"]) << fault;
    EXPECT_EQ(resumed["logprobs_compared"], whole["logprobs_compared"]) << fault;
    EXPECT_EQ(evaluated(run), (std::vector<int>{0, 2, 4})) << fault;
    EXPECT_EQ(std::distance(fs::directory_iterator(path(run) + "/samples"), {}), 3) << fault;
    for (const int step : evaluated(run)) {
      const std::string samples = fmt::format("/samples/step-{:08}.txt", step);
      EXPECT_EQ(read(path(run) + samples), read(path("whole") + samples)) << fault;
    }
  }
  // What the model said of texts its checkpoints say, too: others ask it as it was trained.
  const std::string last = checkpoint("whole", 4);
  EXPECT_EQ(read(last + "/tokenizer_config.json"), read(path("init") + "/tokenizer_config.json"));
  EXPECT_EQ(Json::parse(read(last + "/config.json"))["eos_token_id"], Json({1, 2}));
  EXPECT_FALSE(fs::exists(last + "/generation_config.json"));
  // One thread, other batches of the engine, no more than one answer at a time.
  ran(learn("alone", {"--train.threads=1", "--rl.running=1"}));
  EXPECT_EQ(weights("alone"), expected);
}

/// A template that the run is given is the one that its answers are drawn by, from the first one on.
TEST_F(RlE2e, ConversationsAreAskedByTheTemplateThatIsGiven) {
  write(root_ / "asked.jsonl",
        R"({"messages": [{"role": "user", "content": "the ferry"}], "answer": "crosses"})"
        "\n");
  write(root_ / "own.jinja", kInFileOrder);
  const Strings asked = {"--rl.tasks=" + path("asked.jsonl"),
                         "--rl.held_out=" + path("asked.jsonl"),
                         "--train.steps=2",
                         "--rl.overlong_tokens=11",  // what answers differ in
                         "--checkpoint.keep_last=2",
                         "--checkpoint.chat_template=" + path("own.jinja")};
  Strings without = asked;
  without.pop_back();
  refused(2, learn("mute", without), {"has no chat template"});
  ran(learn("asked", asked));
  // A worker that dies in the second step is followed by one that goes on by what the checkpoint holds.
  const std::string said = ran(learn("asked-again", asked), {{"FERRY_FAULT", "rl.judge:4:kill"}});
  EXPECT_NE(said.find("resume     from"), std::string::npos) << said;
  EXPECT_EQ(weights("asked-again", 2), weights("asked", 2));
  EXPECT_NE(weights("asked", 2), weights("asked", 1));
}

/// A template that asks for the time is told the run's day: the prompts are the same whenever it goes on.
TEST_F(RlE2e, ATemplateThatAsksForTheTimeIsToldTheRunsDay) {
  write(root_ / "said-asked.jsonl",
        R"({"messages": [{"role": "user", "content": "the ferry"}], "answer": "crosses"})"
        "\n");
  write(root_ / "dated.jinja",
        "{{ strftime_now('%Y-%m-%d %S') }}{% for m in messages %}{{ m.content }} {% endfor %}");
  const auto dated = [](const std::string& run, const Strings& more = {}) {
    Strings args = learn(run,
                         {"--rl.tasks=" + path("said-asked.jsonl"),
                          "--rl.held_out=" + path("said-asked.jsonl"),
                          "--train.steps=2",
                          "--checkpoint.chat_template=" + path("dated.jinja")});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const std::string said = ran(dated("dated"));
  EXPECT_NE(said.find("asks for the date: it is told 2026-01-01 (rl.date)"), std::string::npos)
      << said;
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // another second
  ran(dated("dated-again"), {{"FERRY_FAULT", "rl.update:4:kill"}});
  EXPECT_EQ(weights("dated-again", 2), weights("dated", 2));
  // Other prompts are other data.
  refused(
      2, dated("dated", {"--resume", "--train.steps=3", "--rl.date=2026-01-02"}), {"other data"});
  refused(2, dated("a", {"--rl.date=2026-02-30"}), {"rl.date", "2026-11-30"});
  const auto score = [](const std::string& day) {
    return Strings{
        "score", checkpoint("dated", 2), path("said-asked.jsonl"), "--tokens", "2", "--date", day};
  };
  EXPECT_NE(ran(score("2026-01-05")).find("it is told 2026-01-05 (--date)"), std::string::npos);
  refused(2, score("today"), {"--date", "2026-11-30"});
}

/// Answers of another vendor's chip: what parts it from training is measured at each step, and bounded.
class RlElsewhere : public RlE2e {
 protected:
  static Environment simulators(const Environment& more = {}) {
    Environment environment = {{"FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM},
                               {"FERRY_CUDA_LIBRARIES", FERRY_NVIDIA_SIM},
                               {"XDG_STATE_HOME", path("notes")}};
    environment.insert(more.begin(), more.end());
    return environment;
  }
  static Strings elsewhere(const std::string& run, Strings more = {}) {
    more.insert(more.begin(), "--rl.rollout_device=ascend");
    return learn(run, more);
  }
  static std::vector<Json> steps(const std::string& run) {
    std::vector<Json> all;
    std::istringstream lines(read(path(run) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const Json record = Json::parse(line); record["kind"] == "step") all.push_back(record);
    return all;
  }
};

TEST_F(RlElsewhere, IsMeasuredAtEachStepAndResumesToTheSameBits) {
  const std::string said = ran(elsewhere("ascend"), simulators());
  EXPECT_NE(said.find("rollouts   ascend:0, software Ascend"), std::string::npos) << said;
  const Json last = last_line(said);
  EXPECT_EQ(last["logprob_mismatches"], 0);  // of training's own passes
  const std::vector<Json> all = steps("ascend");
  ASSERT_EQ(all.size(), 4u);
  double largest = 0;
  for (const Json& s : all) {
    EXPECT_GT(s["rollout_kl"], 0) << "the CPU drew these: " << s;
    EXPECT_LT(s["rollout_kl"], 0.01) << s;
    EXPECT_GT(s["rollout_ratio_max"], 1) << s;
    EXPECT_TRUE(s.contains("rollout_capped"));
    EXPECT_GT(s["rollout_sent_bytes"], 1000) << s;
    largest = std::max(largest, s["rollout_kl"].get<double>());
  }
  EXPECT_EQ(last["rollout_kl"], largest);
  const Ended e = end_of(elsewhere("ascend-killed", {"--worker"}),
                         simulators({{"FERRY_FAULT", "rl.update:5:kill"}}));
  EXPECT_EQ(e.status, kKilled) << e.output;
  ran(elsewhere("ascend-killed", {"--resume"}), simulators());
  EXPECT_EQ(weights("ascend-killed"), weights("ascend"));
}

/// Kernels for CUDA have the CPU's order of sums: answers that software NVIDIA draws are the CPU's.
TEST_F(RlElsewhere, OnNvidiaTheBitsAreTheCpus) {
  const Strings small = {"--train.steps=1",
                         "--rl.tokens_max=3",
                         "--rl.group_size=2",
                         "--rl.dynamic_sampling=0",
                         "--rl.reward_script=3"};
  Strings cuda = small;
  cuda.emplace_back("--rl.rollout_device=cuda");
  const std::string said = ran(learn("cuda", cuda), simulators());
  EXPECT_NE(said.find("rollouts   cuda:0, software NVIDIA"), std::string::npos) << said;
  ran(learn("here", small));
  ASSERT_EQ(steps("cuda").size(), 1u);
  EXPECT_EQ(steps("cuda")[0]["rollout_kl"], 0);
  EXPECT_EQ(steps("cuda")[0]["rollout_ratio_max"], 1);
  EXPECT_EQ(weights("cuda", 1), weights("here", 1));
}

/// With an adapter the base's weights travel once.
TEST_F(RlElsewhere, WhatDidNotChangeStays) {
  ran(elsewhere("adapter",
                {"--lora.rank=2", "--lora.target_modules=q_proj, kv_b_proj", "--rl.kl=none"}),
      simulators());
  const std::vector<Json> all = steps("adapter");
  ASSERT_EQ(all.size(), 4u);
  EXPECT_GT(all[1]["rollout_sent_bytes"], 0);
  EXPECT_LT(all[1]["rollout_sent_bytes"].get<double>(),
            0.5 * all[0]["rollout_sent_bytes"].get<double>());
}

TEST_F(RlElsewhere, ADefectOfTheChipStopsTheRunByItsName) {
  // So small a model is hardly moved by it: a sound chip is some 1e-5 away.
  const Ended e = end_of(elsewhere("defect", {"--rl.mismatch_max=1e-4"}),
                         simulators({{"FERRY_ASCEND_SIM_DEFECT", "rms_norm_epsilon"}}));
  EXPECT_EQ(e.status, 1) << e.output;
  for (const char* said : {"step 1: rollouts on ascend:0 are ",
                           "rl.mismatch_max is 0.0001",
                           "nothing was learnt of them",
                           "the first op that parts: rms_norm in block 0 on ascend:0"})
    EXPECT_NE(e.output.find(said), std::string::npos) << "not said: " << said << "\n" << e.output;
  // The step that stopped it is in its log, as one that was not learnt.
  ASSERT_EQ(steps("defect").size(), 1u);
  EXPECT_GT(steps("defect")[0]["rollout_kl"], 1e-4);
  EXPECT_TRUE(steps("defect")[0]["skipped"].get<std::string>().starts_with("nothing was learnt"));
  // What there was is kept, and goes on with a chip that is sound.
  ran(elsewhere("defect", {"--resume"}), simulators());
  ASSERT_EQ(steps("defect").size(), 4u);
  EXPECT_FALSE(steps("defect")[0].contains("skipped"));
}

/// A chip that parts more than it did, within the bound, is told of, once.
TEST_F(RlElsewhere, AChipThatPartsMoreThanAtFirstIsToldOf) {
  const std::string sound = ran(elsewhere("worse", {"--train.steps=1"}), simulators());
  EXPECT_EQ(sound.find("times as far"), std::string::npos) << sound;
  const std::string said = ran(elsewhere("worse", {"--resume"}),
                               simulators({{"FERRY_ASCEND_SIM_DEFECT", "rms_norm_epsilon"}}));
  const size_t told = said.find("more than 20 times as far as at step 1");
  ASSERT_NE(told, std::string::npos) << said;
  EXPECT_EQ(said.find("more than 20 times as far", told + 1), std::string::npos) << said;
}

TEST_F(RlElsewhere, TheDeviceThatTrainsIsNoOther) {
  const std::string said = ran(learn("same", {"--rl.rollout_device=cpu", "--train.steps=1"}));
  EXPECT_NE(said.find("rl.rollout_device cpu is the device that trains"), std::string::npos)
      << said;
}

TEST_F(RlElsewhere, WhatWasLookedAtIsSaidWhereNoOpParts) {
  const Ended e = end_of(elsewhere("strict", {"--rl.mismatch_max=0"}), simulators());
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_NE(
      e.output.find(
          "no op left its bounds there or here in the first 12 tokens of the answer "
          "that is furthest away, nor in the first 8 of 12 answers at once, and what training "
          "computes of its own answers is what it draws them by"),
      std::string::npos)
      << e.output;
  EXPECT_EQ(e.output.find("lets the run go on"), std::string::npos) << e.output;
}

/// What is known is said, whatever fails after it: the folder of the checkpoint, here, one of the first that are made.
TEST_F(RlElsewhere, TheVerdictIsSaidAlsoWhereTheRunCannotBeSaved) {
  bool unsaved = false;
  for (int n = 1; n <= 8 && !unsaved; ++n) {
    const std::string run = "unsaved" + std::to_string(n);
    const Ended e =
        end_of(elsewhere(run, {"--rl.mismatch_max=0", "--worker"}),
               simulators({{"FERRY_FAULT", "file.make_folders:" + std::to_string(n) + ":eio"}}));
    unsaved = e.output.find("the run could not be saved: ") != std::string::npos;
    if (!unsaved) continue;
    EXPECT_EQ(e.status, 1) << e.output;
    for (const char* said : {"ferry: step 1: rollouts on ascend:0 are ", "no op left its bounds"})
      EXPECT_NE(e.output.find(said), std::string::npos) << "not said: " << said << "\n" << e.output;
    EXPECT_EQ(steps(run).size(), 1u);
  }
  EXPECT_TRUE(unsaved);
}

/// An answer that was not given was not compared, either.
TEST_F(RlElsewhere, WhatCouldNotBeJudgedIsSaid) {
  const Ended e = end_of(elsewhere("unjudged", {"--rl.mismatch_max=0", "--worker"}),
                         simulators({{"FERRY_FAULT", "rl.answer_again:2:eio"}}));
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_NE(e.output.find("no op left its bounds in what was computed, but not all answers were "
                          "given again: cpu could not give 1 of them: a fault was injected"),
            std::string::npos)
      << e.output;
  EXPECT_EQ(e.output.find("is what it draws them by"), std::string::npos) << e.output;
}

TEST_F(RlElsewhere, ASignalEndsTheJudging) {
  Program p(root_ / "stopped.log",
            elsewhere("stopped", {"--rl.mismatch_max=0", "--worker"}),
            simulators({{"FERRY_FAULT", "rl.answer_again:1:stop"}}));
  // It stands still as the judging begins: the signal comes before anything was judged.
  ASSERT_TRUE(wait_for([&] { return stands_still(p.pid()); })) << p.output();
  p.signal(SIGTERM);
  p.signal(SIGCONT);
  EXPECT_EQ(p.wait(), 1) << p.output();
  EXPECT_NE(p.output().find("the judging was stopped before it found an op"), std::string::npos)
      << p.output();
}

TEST_F(RlElsewhere, AWeightThatArrivesOtherwiseIsNamed) {
  const Ended e =
      end_of(elsewhere("sent", {"--worker"}), simulators({{"FERRY_FAULT", "rl.transfer:3:eio"}}));
  EXPECT_EQ(e.status, 1) << e.output;
  EXPECT_NE(e.output.find("was sent there, and other bytes came back"), std::string::npos)
      << e.output;
}

TEST_F(RlE2e, ScoresAModel) {
  const Json score = last_line(
      ran({"score", checkpoint("base"), path("held"), "--samples", "4", "--tokens", "8"}));
  EXPECT_EQ(score["tasks"], 6);
  EXPECT_LE(score["ci_low"], score["pass_at_1"]);
  EXPECT_GE(score["ci_high"], score["pass_at_1"]);
  EXPECT_GT(score["mean_tokens"], 0);
  EXPECT_EQ(last_line(ran({"score",
                           checkpoint("base"),
                           path("held"),
                           "--samples",
                           "4",
                           "--tokens",
                           "8",
                           "--running",
                           "3"}))["mean_tokens"],
            score["mean_tokens"]);
}

/// pass@k for several k, and everything by kind and difficulty, for whoever reads it by a program.
TEST_F(RlE2e, ScoresByKindAndForSeveralK) {
  tasks("harder", {"--difficulty", "2", "--count", "4"});
  write(root_ / "both", read(path("held")) + read(path("harder")));
  const Strings args = {
      "score", checkpoint("base"), path("both"), "--samples", "4", "--tokens", "8"};
  const auto with = [&](const Strings& more) {
    Strings all = args;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Json score = last_line(ran(with({"--k", "1,2,4", "--out", path("by-kind")})));
  EXPECT_EQ(score["pass_at"].size(), 3u);
  EXPECT_EQ(score["pass_at"]["1"]["share"], score["pass_at_1"]);
  EXPECT_EQ(score["pass_at"]["4"]["share"], score["pass_at_k"]);
  EXPECT_LE(score["pass_at"]["2"]["ci_low"], score["pass_at"]["2"]["share"]);
  ASSERT_EQ(score["by_kind"].size(), 2u);
  EXPECT_EQ(score["by_kind"][0]["difficulty"], 1);
  EXPECT_EQ(score["by_kind"][0]["tasks"], 6);
  EXPECT_EQ(score["by_kind"][1]["difficulty"], 2);
  EXPECT_EQ(score["by_kind"][1]["tasks"], 4);
  EXPECT_TRUE(score["by_kind"][1]["pass_at"].contains("2"));
  std::istringstream lines(read(path("by-kind")));
  std::string first;
  std::getline(lines, first);
  EXPECT_EQ(Json::parse(first)["kind"], "sum");
  EXPECT_EQ(Json::parse(first)["difficulty"], 1);
  for (const char* bad : {"5", "0", "2,1", "1,", "x", "1,,2"})
    refused(2, with({"--k", bad}), {"--k is"});
}

/// What a server answers is scored as what the model answers here.
TEST_F(RlE2e, ScoresAServer) {
  std::string lines;
  for (const char* prompt : {"the ferry", "slow water", "a river at night"})
    lines += R"({"check": "regex", "answer": ".*s.*", "prompt": ")" + std::string(prompt) + "\"}\n";
  write(root_ / "any.jsonl", lines);
  Program server(root_ / "log-served",
                 {"serve",
                  checkpoint("base"),
                  "--name",
                  "base",
                  "--port",
                  "0",
                  // It is asked for more at once than it takes: what it refuses is asked again.
                  "--running",
                  "1",
                  "--waiting",
                  "1"});
  const std::string address = fmt::format("http://127.0.0.1:{}/v1", port_of(server, "base"));
  const Strings greedy = {path("any.jsonl"), "--tokens", "8", "--temperature", "0"};
  const auto score = [&](Strings args, const Strings& more) {
    args.insert(args.begin(), "score");
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  Strings here = greedy;
  here.insert(here.begin(), checkpoint("base"));
  const Json own = last_line(ran(score(here, {"--out", path("here")})));
  const Json theirs = last_line(ran(
      score(greedy,
            {"--server", address, "--samples", "44", "--running", "128", "--out", path("there")})));
  EXPECT_EQ(theirs["tasks"], 3);
  EXPECT_EQ(theirs["pass_at_1"], own["pass_at_1"]);
  EXPECT_EQ(theirs["mean_tokens"], own["mean_tokens"]);
  EXPECT_FALSE(theirs.contains("mean_thought_tokens"));  // it does not tell
  std::istringstream local(read(path("here"))), remote(read(path("there")));
  for (std::string a, b; std::getline(local, a) && std::getline(remote, b);)
    EXPECT_EQ(Json::parse(a)["first_answer"], Json::parse(b)["first_answer"]);

  refused(2, score(here, {"--server", address}), {"--server", "tasks alone"});
  refused(2, score(greedy, {"--server", address, "--top-k", "5"}), {"--top-k", "--server"});
  refused(2, score(greedy, {}), {"tasks is required"});
  write(root_ / "said.jsonl",
        R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "Hi"})"
        "\n");
  refused(2,
          {"score", path("said.jsonl"), "--server", address, "--tokens", "2"},
          {"takes no conversations"});
  // What came before an answer that does not come is kept.
  write(root_ / "too-long.jsonl",
        lines + R"({"answer": "a", "prompt": ")" + std::string(100'000, 'x') + "\"}\n");
  const Ended kept = end_of({"score",
                             path("too-long.jsonl"),
                             "--tokens",
                             "8",
                             "--temperature",
                             "0",
                             "--server",
                             address,
                             "--running",
                             "1",
                             "--out",
                             path("kept")});
  EXPECT_NE(kept.status, 0) << kept.output;
  EXPECT_NE(kept.output.find("has the 3 of 4 tasks"), std::string::npos) << kept.output;
  std::istringstream all(read(path("there"))), some(read(path("kept")));
  int kept_lines = 0;
  for (std::string a, b; std::getline(all, a) && std::getline(some, b); ++kept_lines)
    EXPECT_EQ(Json::parse(a)["first_answer"], Json::parse(b)["first_answer"]);
  EXPECT_EQ(kept_lines, 3);
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(), 0) << server.output();
  refused(3, score(greedy, {"--server", address}), {"127.0.0.1"});
}

TEST_F(RlE2e, AProgramJudges) {
  write(root_ / "judged.jsonl", "{\"prompt\": \"What is\", \"check\": \"program\"}\n");
  const Strings score = {"score", checkpoint("base"), path("judged.jsonl"), "--tokens", "4"};
  refused(2, score, {"judged.jsonl", "--program"});
  for (const auto& [command, worth] :
       {std::pair{"grep -q '\"prompt\":\"What is\"' && echo 1", 1}, {"echo 1; exit 1", 0}}) {
    Strings judged = score;
    judged.insert(judged.end(), {"--program", command});
    EXPECT_EQ(last_line(ran(judged))["pass_at_1"], worth) << command;
  }
}

/// A program that judges nothing is not an answer that is wrong: it is told, and where that is all it does, nothing is
/// scored or learnt by it.
TEST_F(RlE2e, AProgramThatIsBrokenIsTold) {
  std::string lines;
  for (const char* prompt : {"What is", "Who is", "the ferry", "slow water"})
    lines += R"({"check": "program", "prompt": ")" + std::string(prompt) + "\"}\n";
  write(root_ / "by-program.jsonl", lines);
  const auto score = [](const std::string& command) {
    return Strings{"score",
                   checkpoint("base"),
                   path("by-program.jsonl"),
                   "--tokens",
                   "4",
                   "--program",
                   command};
  };
  refused(2, score("sh /judge/chekc.sh"), {"--program: no answer was judged", "/judge/chekc.sh"});
  const std::string some = ran(score("grep -q ferry && echo 1 || ls /missing"));
  EXPECT_EQ(last_line(some)["program_failed"], 3) << some;
  EXPECT_EQ(last_line(some)["pass_at_1"], 0.25) << some;
  EXPECT_NE(some.find("3 of 4 programs that judged"), std::string::npos) << some;
  EXPECT_NE(some.find("/missing"), std::string::npos) << some;

  const auto by_program = [](const std::string& run, const std::string& command) {
    return learn(run,
                 {"--rl.tasks=" + path("by-program.jsonl"),
                  "--rl.held_out=" + path("by-program.jsonl"),
                  "--rl.program=" + command,
                  "--train.steps=2"});
  };
  refused(2, by_program("broken", "sh /judge/chekc.sh"), {"rl.program: no answer", "chekc.sh"});
  const std::string learnt =
      ran(by_program("half-broken", "grep -q e.r && echo 1 || { ls /missing; exit 3; }"));
  EXPECT_GT(last_line(learnt)["program_failed"], 0) << learnt;
  EXPECT_NE(learnt.find("with status 3 and said: ls"), std::string::npos) << learnt;
  EXPECT_NE(learnt.find("programs failed"), std::string::npos) << learnt;
  EXPECT_NE(read(path("half-broken") + "/metrics.jsonl").find("\"program_failed\":"),
            std::string::npos);
}

/// Killed while programs judge, a run ends in the weights of one that was not, and nothing of it goes on running.
TEST_F(RlE2e, WhereProgramsJudgeAKilledRunGoesOnToo) {
  std::string lines;
  for (const char* prompt : {"What is", "Who is", "the ferry", "slow water", "a river", "at night"})
    lines += R"({"check": "program", "prompt": ")" + std::string(prompt) + "\"}\n";
  write(root_ / "programs.jsonl", lines);
  const auto run = [](const std::string& name, const Strings& more = {}) {
    Strings args =
        learn(name,
              {"--rl.tasks=" + path("programs.jsonl"),
               "--rl.held_out=" + path("programs.jsonl"),
               "--train.steps=3",
               "--rl.program=tr -d '\\n' | tr 'a-m' '\\n' | wc -l | sed 's/.*\\(.\\)$/0.\\1/'"});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const Json whole = last_line(ran(run("programs")));
  EXPECT_EQ(whole["program_failed"], 0);
  for (const char* fault : {"rl.program:9", "rl.program:24"}) {
    const std::string name = std::string("programs-") + fault;
    const Ended e =
        end_of(run(name, {"--worker"}), {{"FERRY_FAULT", std::string(fault) + ":kill"}});
    EXPECT_EQ(e.status, kKilled) << fault << "\n" << e.output;
    ran(run(name, {"--resume"}));
    EXPECT_EQ(weights(name, 3), weights("programs", 3)) << fault;
  }
}

/// An adapter, with a reference of its own.
TEST_F(RlE2e, AnAdapterLearnsTheSameBitsHoweverItIsInterrupted) {
  const auto run = [](const std::string& name, const Strings& more = {}) {
    Strings args = learn(name, {"--lora.rank=2", "--lora.target_modules=q_proj, kv_b_proj"});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  const auto adapter = [](const std::string& name) {
    return read(checkpoint(name, 4) + "/adapter_model.safetensors");
  };
  ran(run("adapted"));
  ASSERT_FALSE(adapter("adapted").empty());
  for (const char* fault : {"rl.rollout:45", "rl.score:9", "rl.update:5"}) {
    const std::string name = std::string("adapted-") + fault;
    const Ended e =
        end_of(run(name, {"--worker"}), {{"FERRY_FAULT", std::string(fault) + ":kill"}});
    EXPECT_EQ(e.status, kKilled) << fault << "\n" << e.output;
    const Json resumed = last_line(ran(run(name, {"--resume"})));
    EXPECT_EQ(adapter(name), adapter("adapted")) << fault;
    EXPECT_EQ(resumed["logprob_mismatches"], 0) << fault;
  }
}

/// Two scores of a run are of the same tasks; what else its answers are judged by is told where it changes.
TEST_F(RlE2e, WhatARunIsMeasuredByStaysTheSame) {
  fs::create_directories(root_ / "checks" / "more");
  write(root_ / "checks" / "more" / "right", "1");
  for (const fs::path& above : {root_, root_.parent_path()})  // programs are nobody's
    fs::permissions(above, fs::perms::others_read | fs::perms::others_exec, fs::perm_options::add);
  const auto run = [](const Strings& more) {
    Strings args =
        learn("measured",
              {"--rl.program=cat /judge/more/right", "--rl.program_folder=" + path("checks")});
    args.insert(args.end(), more.begin(), more.end());
    return args;
  };
  ran(run({"--train.steps=1"}));
  tasks("held-others", {"--count", "6", "--first", "50"});
  refused(2,
          run({"--resume", "--rl.held_out=" + path("held-others")}),
          {"other held-out tasks", "rl.held_out"});
  refused(2, run({"--resume", "--rl.evaluate_tasks=5"}), {"held-out tasks", "rl.evaluate_tasks"});
  const std::string again = ran(run({"--resume", "--train.steps=2"}));
  EXPECT_EQ(again.find("rl.program_folder: what it holds"), std::string::npos) << again;
  write(root_ / "checks" / "more" / "right", "0");
  const std::string changed = ran(run({"--resume", "--train.steps=3", "--rl.evaluate_tasks=7"}));
  EXPECT_NE(changed.find("rl.program_folder: what it holds"), std::string::npos) << changed;
}

/// 100 sums of one digit there are: all but the one that is asked in a conversation, and its mirror image.
TEST_F(RlE2e, TasksAreKeptApartWhateverTheirInstruction) {
  write(root_ / "asked.jsonl",
        R"({"messages": [{"role": "user", "content": "Think.\n\nWhat is 2 + 3?"}], "answer": "5"})"
        "\n");
  tasks("apart",
        {"--count", "2000", "--without", path("asked.jsonl"), "--instruction", "Be brief."});
  const std::string made = read(path("apart"));
  EXPECT_EQ(made.find("What is 2 + 3?"), std::string::npos);
  EXPECT_EQ(made.find("What is 3 + 2?"), std::string::npos);
  EXPECT_NE(made.find("What is 3 + 4?"), std::string::npos);
  EXPECT_NE(made.find("Be brief."), std::string::npos);
}

TEST_F(RlE2e, WrongInputIsRefusedByName) {
  refused(2, {"tasks", "sum", "--out", path("held")}, {"is there already"});
  refused(2, {"tasks", "poems", "--out", path("x")}, {"sum"});
  refused(2, learn("a", {"--rl.tasks=" + path("none")}), {"none"});
  refused(2, learn("a", {"--rl.tokens_max=100000"}), {"rl.tokens_max", "positions"});
  refused(2, learn("a", {"--rl.script=Klingon"}), {"Klingon"});
  // data.sequence_length (512) says nothing of answers: a run may have smaller micro-batches.
  refused(2,
          learn("a", {"--train.micro_batch_tokens=48", "--rl.tokens_max=100000"}),
          {"rl.tokens_max", "positions"});
  // What there is no room for is told before the first step.
  refused(3,
          learn("a", {"--checkpoint.keep_last=1000000"}),
          {"time       about", "the checkpoints need"});
  refused(2, learn("a", {"--rl.minibatches=2"}), {"rl.groups_per_step"});
  refused(
      2,
      {"rl", path("rl.toml"), "--model.init=" + checkpoint("base"), "--data.dir=" + path("text")},
      {"rl.tasks"});
  Strings training = learn("a");
  training[0] = "train";
  refused(2, training, {"ferry rl"});
  write(root_ / "bad.jsonl", "{\"prompt\": \"1 + 1\"}\n");
  refused(2, {"score", checkpoint("base"), path("bad.jsonl")}, {"bad.jsonl:1", "answer"});
}

}  // namespace
