// The built program learning from pairs of answers: what is held out is preferred as well; however it is run, and
// interrupted, the same bits; with an adapter; and what is wrong is refused by name.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

constexpr const char* kLearn = R"([data]
sequence_length = 64
[train]
steps = 12
micro_batch_tokens = 256
tokens_per_step = 256
evaluate_every = 4
[dpo]
pairs_per_step = 8
[optimizer]
lr = 3e-3
[schedule]
warmup_steps = 1
[checkpoint]
every = 2
keep_last = 9
[log]
every = 1
)";

class DpoE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    write(path("chat.jinja"),
          "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}"
          "<|eos|>{% endif %} {% endfor %}"
          "{% if add_generation_prompt %}[assistant] {% endif %}");
    ran(train("base", {"--checkpoint.chat_template=" + path("chat.jinja")}));
    ran({"convert", checkpoint("base"), "--to", "f32", "--out", path("init")});
    write(root_ / "dpo.toml", kLearn);
    // Short answers are preferred to long ones, of other words in what is held out.
    pairs("learn", {"ferry", "river", "water", "night", "boat", "shore"});
    pairs("held", {"slow", "stone", "wind"});
    said_ = ran(learn("whole"));
  }
  static void pairs(const std::string& name, const Strings& words) {
    std::string lines;
    for (const std::string& a : words)
      for (const std::string& b : words) {
        const Json user = {{"role", "user"}, {"content", "the " + a + " and the " + b}};
        const Json good = {{"role", "assistant"}, {"content", a}};
        const Json bad = {{"role", "assistant"}, {"content", b + " " + a + " the " + b}};
        // Both forms, one after the other.
        lines += (a < b ? Json{{"prompt", {user}}, {"chosen", {good}}, {"rejected", {bad}}}
                        : Json{{"chosen", {user, good}}, {"rejected", {user, bad}}, {"id", 7}})
                     .dump() +
                 "\n";
      }
    write(path(name), lines);
  }
  static Strings learn(const std::string& run, const Strings& more = {}) {
    Strings args = {"train",
                    path("dpo.toml"),
                    "--model.init=" + path("init"),
                    "--dpo.pairs=" + path("learn"),
                    "--dpo.held_out=" + path("held"),
                    "--checkpoint.dir=" + path(run)};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static Json last_line(const std::string& output) {
    return Json::parse(output.substr(output.rfind("\n{") + 1));
  }
  static std::vector<Json> records(const std::string& run, const std::string& kind) {
    std::vector<Json> all;
    std::istringstream lines(read(path(run) + "/metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const Json record = Json::parse(line); record["kind"] == kind) all.push_back(record);
    return all;
  }

  inline static std::string said_;
};

TEST_F(DpoE2e, LearnsWhatIsPreferred) {
  for (const char* line :
       {"pairs      36 to learn from, 9 held out; 8 a step, 2.67 epochs in 12 steps\n",
        "reference  45 pairs are scored by the model that the run begins with\n",
        "% of 9 pairs right"})
    EXPECT_NE(said_.find(line), std::string::npos) << said_;
  const std::vector<Json> steps = records("whole", "step"), held_out = records("whole", "held_out");
  ASSERT_EQ(steps.size(), 12u);
  ASSERT_EQ(held_out.size(), 3u);
  // The first step is made at the reference.
  EXPECT_NEAR(steps[0]["loss"].get<double>(), 0.6931471805599453, 1e-12);
  EXPECT_EQ(steps[0]["rewards/margins"], 0);
  EXPECT_LT(steps[0]["logps/rejected"], steps[0]["logps/chosen"]);  // it is longer
  for (const Json& s : steps) {
    EXPECT_EQ(s["logprob_mismatches"], 0) << s;
    EXPECT_GT(s["logprobs_compared"], 16) << s;
    EXPECT_NEAR(s["rewards/chosen"].get<double>() - s["rewards/rejected"].get<double>(),
                s["rewards/margins"].get<double>(),
                1e-9);
  }
  EXPECT_GT(steps.back()["rewards/margins"], 0.2);
  EXPECT_EQ(held_out.back()["rewards/accuracies"], 1);
  EXPECT_EQ(held_out.back()["pairs"], 9);
  EXPECT_LT(held_out.back()["loss"], 0.6);
  const Json last = last_line(said_);
  EXPECT_EQ(last["held_out_accuracy"], held_out.back()["rewards/accuracies"]);
  EXPECT_EQ(last["held_out_margin"], held_out.back()["rewards/margins"]);
  EXPECT_EQ(last["model_dir"], checkpoint("whole", 12));
  EXPECT_NE(read(path("whole") + "/curve.svg").find("loss of a pair"), std::string::npos);
  // What comes of it is asked as the model that it began from, and is whole.
  const std::string dir = checkpoint("whole", 12);
  EXPECT_EQ(read(dir + "/chat_template.jinja"), read(path("init") + "/chat_template.jinja"));
  EXPECT_EQ(read(dir + "/generation_config.json"), read(path("init") + "/generation_config.json"));
  ran({"verify", dir});
}

TEST_F(DpoE2e, HoweverItIsRunTheSameBits) {
  const Trace expected = trace("whole", 12);
  ASSERT_FALSE(expected.weights.empty());
  ran(learn("thread", {"--train.threads=1"}));
  expect_same(trace("thread", 12), expected, "one thread");
  // A worker dies before its first step, in the middle of one, as it evaluates, as it saves; the run's first model is
  // gone when another goes on.
  for (const char* const fault : {"dpo.reference:3:kill",
                                  "dpo.score:40:kill",
                                  "beat.train:6:kill",
                                  "beat.evaluate:2:kill",
                                  "file.rename:4:kill"}) {
    fs::remove_all(path("killed"));
    const Ended e = end_of(learn("killed", {"--worker"}), {{"FERRY_FAULT", fault}});
    ASSERT_EQ(e.status, kKilled) << fault << "\n" << e.output;
    const bool saved = has_checkpoint("killed");
    if (saved) fs::rename(path("init"), path("away"));
    const std::string resumed = ran(learn("killed", {"--resume"}));
    if (saved) fs::rename(path("away"), path("init"));
    EXPECT_EQ(resumed.find("no checkpoint yet") == std::string::npos, saved) << fault << resumed;
    expect_same(trace("killed", 12), expected, fault);
    EXPECT_EQ(records("killed", "held_out").size(), 3u) << fault;
  }
}

/// What of the reference was computed is kept: a run that ends before its first checkpoint does not begin again, and
/// one of another model, or with a harmed file, does.
TEST_F(DpoE2e, AReferenceIsComputedOnce) {
  const auto resumed = [&](const Strings& more = {}) {
    Strings args = learn("begun", {"--resume", "--train.steps=1"});
    args.insert(args.end(), more.begin(), more.end());
    return ran(args);
  };
  const Ended e = end_of(learn("begun", {"--worker"}), {{"FERRY_FAULT", "dpo.score:20:kill"}});
  ASSERT_EQ(e.status, kKilled) << e.output;
  ASSERT_FALSE(has_checkpoint("begun"));
  std::string said = resumed();
  EXPECT_NE(
      said.find("reference  0 pairs are scored by the model that the run begins with; 45 were "
                "before\n"),
      std::string::npos)
      << said;
  const std::string expected = read(checkpoint("begun", 1) + "/model.safetensors");
  const auto begin_again = [] {
    for (const auto& entry : fs::directory_iterator(path("begun")))
      if (entry.path().filename().string().starts_with("step-")) fs::remove_all(entry.path());
  };
  begin_again();
  const std::string file = path("begun") + "/reference.json";
  std::string harmed = read(file);
  const size_t digit = harmed.find('.', harmed.find("log_probs")) + 1;
  harmed[digit] = harmed[digit] == '1' ? '2' : '1';
  write(file, harmed);
  said = resumed();
  EXPECT_NE(said.find("reference.json: its numbers are not those of its hash"), std::string::npos)
      << said;
  EXPECT_NE(said.find("reference  45 pairs are scored by the model that the run begins with\n"),
            std::string::npos)
      << said;
  EXPECT_EQ(read(checkpoint("begun", 1) + "/model.safetensors"), expected);
  begin_again();
  said = resumed({"--train.compute=f32"});
  EXPECT_NE(said.find("reference  45 pairs"), std::string::npos) << said;
  // Another kind of device adds in another order: its reference is another.
  begin_again();
  said = ran(learn("begun",
                   {"--resume", "--train.steps=1", "--train.compute=f32", "--train.device=ascend"}),
             {{"FERRY_ASCEND_LIBRARIES", FERRY_ASCEND_SIM}});
  EXPECT_NE(said.find("reference  45 pairs are scored by the model that the run begins with\n"),
            std::string::npos)
      << said;
}

/// A file of pairs may be touched, and its day is nobody's business.
TEST_F(DpoE2e, ADatedTemplateIsToldTheSameDayWheneverItIsAsked) {
  write(path("dated.jinja"), "{{ strftime_now('%Y-%m-%d') }} " + read(path("chat.jinja")));
  const Strings dated = {"--checkpoint.chat_template=" + path("dated.jinja"), "--train.steps=2"};
  const std::string said = ran(learn("dated", dated));
  EXPECT_NE(said.find("asks for the date: it is told 2026-01-01 (dpo.date)"), std::string::npos)
      << said;
  fs::last_write_time(path("learn"),
                      fs::last_write_time(path("learn")) - std::chrono::hours(24 * 500));
  Strings on = dated;
  on.back() = "--train.steps=3";
  on.emplace_back("--resume");
  ran(learn("dated", on));
  on.emplace_back("--dpo.date=2026-01-02");
  refused(2, learn("dated", on), {"other data"});
  refused(2, learn("a", {"--dpo.date=2026-02-30"}), {"dpo.date", "2026-11-30"});
}

/// The base is the reference, of which no second one is needed; what goes on needs no more than before.
TEST_F(DpoE2e, AnAdapterIsTrainedToo) {
  const Strings lora = {"--lora.rank=4",
                        "--lora.target_modules=q_proj, kv_b_proj",
                        "--dpo.beta=0.5",
                        "--optimizer.lr=0.02"};
  const Json last = last_line(ran(learn("lora", lora)));
  EXPECT_EQ(last["adapter"], checkpoint("lora", 12));
  EXPECT_EQ(last["held_out_accuracy"], 1);
  EXPECT_EQ(records("lora", "step")[0]["rewards/margins"], 0);
  Strings worker = lora;
  worker.emplace_back("--worker");
  const Ended e = end_of(learn("lora-killed", worker), {{"FERRY_FAULT", "dpo.score:40:kill"}});
  ASSERT_EQ(e.status, kKilled) << e.output;
  Strings resume = lora;
  resume.emplace_back("--resume");
  ran(learn("lora-killed", resume));
  EXPECT_EQ(read(checkpoint("lora-killed", 12) + "/adapter_model.safetensors"),
            read(checkpoint("lora", 12) + "/adapter_model.safetensors"));
}

TEST_F(DpoE2e, OtherLossesAreLearntToo) {
  for (const Strings& loss : {Strings{"--dpo.loss_type=ipo", "--dpo.beta=1"},
                              Strings{"--dpo.loss_type=robust", "--dpo.label_smoothing=0.1"},
                              Strings{"--dpo.loss_type=hinge", "--dpo.rpo_alpha=0.5"}}) {
    fs::remove_all(path("other"));
    Strings more = loss;
    more.emplace_back("--train.steps=4");
    const Json last = last_line(ran(learn("other", more)));
    EXPECT_GT(last["held_out_margin"], 0) << loss[0];
    EXPECT_NE(records("other", "step")[1]["loss"], records("whole", "step")[1]["loss"]) << loss[0];
  }
}

TEST_F(DpoE2e, WhatIsWrongIsRefusedByName) {
  refused(2, learn("a", {"--data.dir=" + path("text")}), {"dpo.pairs and data.dir"});
  refused(2, learn("a", {"--dpo.loss_type=orpo"}), {"dpo.loss_type", "sigmoid"});
  refused(2, learn("a", {"--dpo.loss_type=ipo", "--dpo.label_smoothing=0.1"}), {"label_smoothing"});
  refused(2, learn("a", {"--model.init="}), {"model.init"});
  refused(2, learn("a", {"--dpo.pairs="}), {"dpo.held_out is set"});
  refused(2, learn("a", {"--dpo.pairs=" + path("none")}), {path("none")});
  Strings two = {"launch", "-n", "2", "--"};
  for (const std::string& arg : learn("a")) two.push_back(arg);
  refused(2, two, {"dpo.pairs", "launch -n 2"});
  write(root_ / "bad", read(path("held")) + "{\"prompt\": \"the ferry\"}\n");
  refused(2, learn("a", {"--dpo.pairs=" + path("bad")}), {"bad:10: ", "\"chosen\""});
  refused(2, learn("a", {"--dpo.held_out=" + path("bad")}), {"bad:10: "});
  refused(2, learn("a", {"--data.sequence_length=8"}), {"learn:1: ", "data.sequence_length is 8"});
  const std::string some =
      ran(learn("some", {"--dpo.held_out=" + path("bad"), "--dpo.skip_bad=1", "--train.steps=1"}));
  EXPECT_NE(some.find("left out   " + path("bad") + ":10: "), std::string::npos) << some;
  // Going on with other pairs, or pairs held out.
  refused(2,
          learn("whole", {"--dpo.pairs=" + path("held"), "--resume"}),
          {"other data", "dpo.pairs and dpo.held_out"});
  refused(2, learn("whole", {"--dpo.held_out=", "--resume"}), {"other data"});
  // In another type the reference would be another.
  refused(2, learn("whole", {"--train.compute=f32", "--resume"}), {"train.compute was \"bf16\""});
  ran({"convert", path("init"), "--out", path("mute")});
  fs::remove(path("mute") + "/checksums.json");
  fs::remove(path("mute") + "/chat_template.jinja");
  refused(2, learn("a", {"--model.init=" + path("mute")}), {"has no chat template"});
}

/// At no rate at all nothing is preferred that was not: routers are moved if somebody asks for it, and then it shows.
TEST_F(DpoE2e, NothingIsLearntBesideTheLoss) {
  Strings still = {"--optimizer.lr=1e-30", "--train.tokens_per_step=77"};
  const Json last = last_line(ran(learn("still", still)));
  EXPECT_EQ(last["held_out_accuracy"], 0);
  EXPECT_EQ(last["held_out_margin"], 0);
  still.emplace_back("--train.bias_update_speed=0.05");
  EXPECT_NE(last_line(ran(learn("moved", still)))["held_out_margin"], 0);
}

/// Without pairs held out a run is one all the same.
TEST_F(DpoE2e, NothingNeedBeHeldOut) {
  const Json last = last_line(ran(learn("alone", {"--dpo.held_out=", "--train.steps=3"})));
  EXPECT_FALSE(last.contains("held_out_accuracy"));
  EXPECT_EQ(last["step"], 3);
}

}  // namespace
