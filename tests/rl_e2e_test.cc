// The built program making tasks, scoring a model on them, and letting it learn from them: what a
// run that was interrupted, or killed, ends in is what an uninterrupted one ends in.
#include <nlohmann/json.hpp>
#include <sstream>

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
    write(root_ / "rl.toml", kLearn);
    tasks("held", {"--count", "6"});
    tasks("learn", {"--count", "10", "--without", path("held")});
  }
  static void tasks(const std::string& name, const Strings& more) {
    Strings args = {"tasks", "sum", "--difficulty", "1", "--out", path(name)};
    args.insert(args.end(), more.begin(), more.end());
    ran(args);
  }
  static Strings learn(const std::string& run, const Strings& more = {}) {
    Strings args = {"rl",
                    path("rl.toml"),
                    "--model.init=" + checkpoint("base"),
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
  static std::string weights(const std::string& run) {
    return read(checkpoint(run, 4) + "/model.safetensors");
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
  EXPECT_NE(read(path("whole") + "/samples/step-00000004.txt"), "");
  EXPECT_NE(read(path("whole") + "/curve.svg").find("Reward"), std::string::npos);

  // A worker dies in the middle of a step, while it draws or while it learns, and is gone on with.
  for (const char* beat : {"3", "9", "17", "40"}) {
    const std::string run = std::string("killed-") + beat;
    end_of(learn(run, {"--worker"}),
           {{"FERRY_FAULT", std::string("beat.train:") + beat + ":kill"}});
    ran(learn(run, {"--resume"}));
    EXPECT_EQ(weights(run), expected) << "killed at beat " << beat;
  }
  // One thread, other batches of the engine, no more than one answer at a time.
  ran(learn("alone", {"--train.threads=1", "--rl.running=1"}));
  EXPECT_EQ(weights("alone"), expected);
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

TEST_F(RlE2e, WrongInputIsRefusedByName) {
  refused(2, {"tasks", "sum", "--out", path("held")}, {"is there already"});
  refused(2, {"tasks", "poems", "--out", path("x")}, {"sum"});
  refused(2, learn("a", {"--rl.tasks=" + path("none")}), {"none"});
  refused(2, learn("a", {"--rl.tokens_max=100000"}), {"rl.tokens_max", "positions"});
  refused(2, learn("a", {"--rl.script=Klingon"}), {"Klingon"});
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
