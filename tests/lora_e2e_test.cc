// The built program training an adapter (LoRA), and using it: interrupted, by several threads and processes, the same
// bits; with the base, merged, the same answers; of another base, refused by name.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "trains.h"

namespace {

using namespace ferry::program;
using Json = nlohmann::json;

class LoraE2e : public Trains {
 protected:
  static void SetUpTestSuite() {
    begin_folder();
    ran(train("first"));
    base_ = checkpoint("first");
    // What is adapted is what others would have: no state, nothing of a run.
    ran({"convert", base_, "--to", "f32", "--out", path("base")});
    base_ = path("base");
    write(root_ / "lora.toml", kRun);
    write(root_ / "ids", "1 2 3 4 5 6 7 8\n");
    said_ = ran(adapt("whole"));
  }
  static Strings adapt(const std::string& run, const Strings& more = {}) {
    Strings args = train(run,
                         {"--model.init=" + base_,
                          "--lora.rank=4",
                          "--lora.alpha=8",
                          "--lora.target_modules=q_proj, kv_b_proj",
                          "--optimizer.lr=0.02",
                          "--train.micro_batch_tokens=64"},
                         "lora.toml");
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  /// The calls of these settings' run that the doctor tried of an op, a line for each.
  static std::string tried(const std::string& settings, const std::string& op) {
    const std::string output = ran({"doctor",
                                    "--quick",
                                    "--soak",
                                    "0",
                                    "--only",
                                    op,
                                    "--for",
                                    path(settings + ".toml"),
                                    "--json",
                                    path("examined")});
    const Json report = Json::parse(read(path("examined")));
    std::string lines;
    for (const Json& o : report.at("outcomes"))
      if (const std::string name = o.at("name"); name.find(", as in ") != std::string::npos)
        lines += name + "\n";
    EXPECT_FALSE(lines.empty()) << output;
    return lines;
  }
  static std::string factors(const std::string& run, int step = kSteps) {
    return read(checkpoint(run, step) + "/adapter_model.safetensors");
  }
  static std::string logits(const Strings& model, const std::string& dtype = "f32") {
    Strings args = {"logits"};
    args.insert(args.end(), model.begin(), model.end());
    for (const std::string& a : {std::string("--dtype"),
                                 dtype,
                                 std::string("--tokens"),
                                 path("ids"),
                                 std::string("--out"),
                                 path("out")})
      args.push_back(a);
    fs::remove(path("out"));
    ran(args);
    return read(path("out"));
  }

  inline static std::string base_, said_;
};

TEST_F(LoraE2e, LearnsAndKeepsNothingButTheAdapter) {
  EXPECT_NE(said_.find("adapter    rank 4 on kv_b_proj, q_proj"), std::string::npos) << said_;
  const Json last = Json::parse(said_.substr(said_.rfind("\n{") + 1));
  EXPECT_EQ(last["adapter"], checkpoint("whole"));
  EXPECT_EQ(last["model_dir"], base_);
  EXPECT_LT(fs::file_size(checkpoint("whole") + "/adapter_model.safetensors"),
            fs::file_size(base_ + "/model.safetensors") / 4);
  EXPECT_FALSE(fs::exists(checkpoint("whole") + "/config.json"));
  const Json config = Json::parse(read(checkpoint("whole") + "/adapter_config.json"));
  EXPECT_EQ(config["target_modules"], Json({"kv_b_proj", "q_proj"}));
  EXPECT_EQ(config["r"], 4);
  const Json passport = Json::parse(read(checkpoint("whole") + "/passport.json"));
  EXPECT_EQ(passport["statement"]["base"].get<std::string>().size(), 64u);
  std::map<int, double> held_out;
  std::istringstream lines(read(path("whole") + "/metrics.jsonl"));
  for (std::string line; std::getline(lines, line);)
    if (const Json record = Json::parse(line); record["kind"] == "held_out")
      held_out[record["step"]] = record["loss"];
  EXPECT_LT(held_out.rbegin()->second, held_out.begin()->second - 0.01) << "it does not learn";
}

TEST_F(LoraE2e, HoweverItIsRunTheSameBits) {
  const std::string expected = factors("whole");
  ASSERT_FALSE(expected.empty());
  ran(adapt("thread", {"--train.threads=1"}));
  EXPECT_EQ(factors("thread"), expected) << "one thread";
  Strings by_two = {"launch", "-n", "2", "--"};
  for (const std::string& a : adapt("two")) by_two.push_back(a);
  ran(by_two);
  EXPECT_EQ(factors("two"), expected) << "two processes";
  for (const char* const fault : {"beat.train:7:kill", "file.rename:4:kill"}) {
    fs::remove_all(path("killed"));
    const Ended e = end_of(adapt("killed", {"--worker"}), {{"FERRY_FAULT", fault}});
    ASSERT_EQ(e.status, kKilled) << fault << "\n" << e.output;
    const std::string resumed = ran(adapt("killed", {"--resume"}));
    EXPECT_NE(resumed.find("resume     from"), std::string::npos) << fault << "\n" << resumed;
    EXPECT_EQ(factors("killed"), expected) << fault;
  }
}

TEST_F(LoraE2e, WithItsBaseItIsTheMergedModel) {
  const std::string adapter = checkpoint("whole");
  ran({"convert", base_, "--adapter", adapter, "--to", "f32", "--out", path("merged")});
  for (const char* const dtype : {"f32", "bf16"}) {
    const std::string with = logits({base_, "--adapter", adapter}, dtype);
    EXPECT_EQ(with, logits({path("merged")}, dtype)) << dtype;
    EXPECT_NE(with, logits({base_}, dtype)) << dtype;
  }
  const Strings asked = {"--prompt", "the ferry", "--tokens", "12", "--temperature", "0"};
  Strings one = {"generate", base_, "--adapter", adapter}, other = {"generate", path("merged")};
  one.insert(one.end(), asked.begin(), asked.end());
  other.insert(other.end(), asked.begin(), asked.end());
  const auto answer = [](const std::string& output) {  // without notes, whose models differ
    std::string kept;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);)
      if (!line.starts_with("ferry: note") && !line.starts_with("{")) kept += line + "\n";
    return kept;
  };
  EXPECT_EQ(answer(ran(one)), answer(ran(other)));
}

TEST_F(LoraE2e, WhatIsMergedNamesItsBasesPassportAndTheAdapter) {
  const std::string vouched = path("vouched");
  fs::copy(base_, vouched, fs::copy_options::recursive);
  ran({"passport", vouched});
  ran({"convert", vouched, "--adapter", checkpoint("whole"), "--out", path("of vouched")});
  const Json made = Json::parse(read(path("of vouched") + "/made_from.json"));
  EXPECT_EQ(made.value("passport", ""), Json::parse(read(vouched + "/passport.json"))["root"]);
  EXPECT_EQ(made.value("adapter", "").size(), 64u);
}

/// Neither pairs nor tasks are read: a run's own sizes are what its settings say.
TEST_F(LoraE2e, TheDoctorTriesWhatSuchARunDoes) {
  const std::string begin =
      std::string(kRun) + "[model]\ninit = \"" + base_ + "\"\n[lora]\nrank = 3\n";
  std::string text = begin;
  text.insert(text.find("sequence_length"), "dir = \"/nonexistent\"\n");
  write(root_ / "text.toml", text);
  write(root_ / "pairs.toml", begin + "[dpo]\npairs = \"/nonexistent\"\npairs_per_step = 3\n");
  write(root_ / "tasks.toml",
        begin +
            "[rl]\ntasks = \"/nonexistent\"\nheld_out = \"/nonexistent\"\nrunning = 5\n"
            "tokens_max = 40\n");
  const auto expect = [](const std::string& lines, const std::string& call) {
    EXPECT_NE(lines.find(call), std::string::npos) << call << " is not among\n" << lines;
  };
  // Factors are multiplied at the depth of their rank. Held-out text is scored in the absorbed form, whose products
  // of heads training has not.
  const std::string products = tried("text", "matmul");
  expect(products, "rows 64, depth 3, columns 16,");
  expect(products, "batch 2, rows 256,");
  // A pair, and as many as a micro-batch holds.
  const std::string norms = tried("pairs", "rms_norm");
  expect(norms, "tokens 105,");
  expect(norms, "tokens 210,");
  // The last tokens of as many answers as are drawn at once.
  expect(tried("tasks", "token_log_probs"), "rows 5,");
}

TEST_F(LoraE2e, WhatDoesNotFitIsRefusedByName) {
  const std::string adapter = checkpoint("whole");
  refused(2,
          {"logits", adapter, "--tokens", path("ids"), "--out", path("out")},
          {"--adapter", adapter});
  // The run's own first weights, of the same shapes.
  ran(train("other", {"--train.seed=2", "--train.steps=1", "--schedule.warmup_steps=1"}));
  const std::string other = checkpoint("other", 1);
  const Strings elsewhere = {
      "logits", other, "--adapter", adapter, "--tokens", path("ids"), "--out", path("out")};
  refused(2, elsewhere, {adapter, "other weights", other});
  refused(2, {"convert", other, "--adapter", adapter, "--out", path("none")}, {"other weights"});
  EXPECT_FALSE(fs::exists(path("none")));
  refused(2,
          {"logits", base_, "--adapter", base_, "--tokens", path("ids"), "--out", path("out")},
          {base_, "is no adapter", "adapter_config.json"});
  // The base with another tokenizer.json: the weights are the same, the ids are not.
  fs::copy(base_, path("renamed"), fs::copy_options::recursive);
  for (const char* name : {"passport.json", "checksums.json"})
    fs::remove(path("renamed") + "/" + name);
  const Strings renamed = {
      "generate", path("renamed"), "--adapter", adapter, "--prompt", "a", "--tokens", "2"};
  ran(renamed);
  nlohmann::json tokenizer = nlohmann::json::parse(read(path("renamed") + "/tokenizer.json"));
  // A token behind the others that no text had when the adapter learnt.
  nlohmann::json more = tokenizer, later = tokenizer["added_tokens"].back();
  later["id"] = std::max(later["id"].get<size_t>() + 1, tokenizer["model"]["vocab"].size());
  later["content"] = "<|later|>";
  more["added_tokens"].push_back(later);
  write(path("renamed") + "/tokenizer.json", more.dump());
  ran(renamed);
  std::swap(tokenizer["model"]["vocab"]["a"], tokenizer["model"]["vocab"]["e"]);
  write(path("renamed") + "/tokenizer.json", tokenizer.dump());
  refused(2, renamed, {path("renamed") + "/tokenizer.json", "another tokenizer", adapter});
  refused(2,
          {"convert", path("renamed"), "--adapter", adapter, "--out", path("none")},
          {"another tokenizer"});
  // What a run keeps.
  refused(2, adapt("whole", {"--resume", "--lora.rank=8"}), {"lora.rank was 4", "--adapter"});
  refused(2, adapt("whole", {"--resume", "--lora.rank=0"}), {"lora.rank was 4"});
  refused(2, adapt("none", {"--lora.target_modules=query"}), {"query", "kv_b_proj"});
  refused(2, adapt("none", {"--checkpoint.weights=bf16"}), {"checkpoint.weights"});
  refused(2, train("none", {"--lora.rank=2"}), {"lora.rank is 2", "model.init"});
  prepare("others", 2);
  refused(2,
          adapt("whole", {"--resume", "--train.steps=20", "--data.dir=" + path("others")}),
          {"other data", "convert", "--adapter"});
  refused(2,
          {"logits",
           base_,
           "--adapter",
           path("nowhere"),
           "--tokens",
           path("ids"),
           "--out",
           path("out")},
          {"nowhere", "does not exist"});
  // An adapter that lies beside its base is used if it is named.
  fs::copy(base_, path("both"), fs::copy_options::recursive);
  for (const char* const file : {"adapter_config.json", "adapter_model.safetensors"})
    fs::copy_file(adapter + "/" + file, path("both") + "/" + file);
  for (const char* const file : {"passport.json", "checksums.json"})
    fs::remove(path("both") + "/" + file);
  const Strings both = {"logits", path("both"), "--tokens", path("ids"), "--out", path("out")};
  EXPECT_NE(ran(both).find("is not used"), std::string::npos);
  Strings added = both;
  added.insert(added.end(), {"--adapter", path("both")});
  fs::remove(path("out"));
  EXPECT_EQ(ran(added).find("is not used"), std::string::npos);
  // The base that a run goes on with is the one that it began with.
  fs::rename(base_, path("kept"));
  fs::copy(path("kept"), base_, fs::copy_options::recursive);
  for (const char* const file : {"passport.json", "checksums.json"}) fs::remove(base_ + "/" + file);
  Json changed = Json::parse(read(base_ + "/config.json"));
  changed["rope_theta"] = 5000.0;
  write(base_ + "/config.json", changed.dump());
  refused(
      2, adapt("whole", {"--resume", "--train.steps=20"}), {"config.json describes another model"});
  fs::remove_all(base_);
  fs::rename(path("kept"), base_);
  fs::rename(base_, path("kept"));
  fs::copy(other, base_, fs::copy_options::recursive);
  refused(2, adapt("whole", {"--resume", "--train.steps=20"}), {"other weights"});
  fs::remove_all(base_);
  fs::rename(path("kept"), base_);
}

}  // namespace
