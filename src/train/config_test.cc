#include "train/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "models/deepseek_v3/config.h"
#include "train/config_field.h"

namespace ferry {
namespace {

constexpr const char* kGood = R"(
[model]
preset = "small"
hidden_size = 256
q_lora_rank = 0
rope_scaling = { type = "yarn", factor = 4 }

[data]
dir = "shards"

[train]
steps = 300
clip = 1
)";

std::string refusal(std::string_view toml, std::vector<std::string> overrides = {}) {
  const auto r = parse_settings(toml, "run.toml", overrides);
  EXPECT_FALSE(r) << toml;
  if (r) return "accepted";
  EXPECT_EQ(r.error().code, Code::kInvalidInput);
  return r.error().message;
}

TEST(Settings, ReadsTomlAndOverrides) {
  const std::vector<std::string> overrides = {"--train.steps=400",
                                              "optimizer.kind=muon",
                                              "--optimizer.lr=2e-3",
                                              "--train.recompute=layers",
                                              "--model.n_routed_experts=8"};
  const auto s = parse_settings(kGood, "run.toml", overrides);
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ(s->train.steps, 400);
  EXPECT_EQ(s->model.hidden_size, 256);
  EXPECT_EQ(s->model.n_routed_experts, 8);
  EXPECT_EQ(s->model.vocab_size, std::nullopt);
  EXPECT_EQ(s->optimizer.lr, 2e-3);
  EXPECT_EQ(s->train.recompute, "layers");
  EXPECT_EQ(optimizer_of(*s).kind, OptimizerSettings::Kind::kMuon);
  EXPECT_EQ(schedule_of(*s).decay_steps, 80);
  EXPECT_EQ(
      model_overrides(s->model).dump(),
      R"({"hidden_size":256,"q_lora_rank":null,"n_routed_experts":8,"rope_scaling":{"type":"yarn","factor":4.0}})");
  EXPECT_EQ(settings_json(*s)["train"]["steps"], 400);
}

TEST(Settings, PrintsWhatItReadsBack) {
  const auto s = parse_settings(
      kGood,
      "run.toml",
      std::vector<std::string>{"--checkpoint.dir=a \"b\"\\\n\x7f", "--optimizer.eps=1e-20"});
  ASSERT_TRUE(s);
  const std::string printed = print_settings(*s);
  const auto again = parse_settings(printed, "printed");
  ASSERT_TRUE(again) << again.error().message << "\n" << printed;
  EXPECT_TRUE(changed_settings(*s, *again).empty());
  EXPECT_EQ(settings_json(*s), settings_json(*again));
  EXPECT_NE(printed.find("# updates of the weights (a whole number, 1 to 1000000000; steps; "
                         "default 1000)\nsteps = 300\n"),
            std::string::npos)
      << printed;
}

TEST(Settings, ListsWhatChanged) {
  const auto a = parse_settings(kGood, "a"),
             b = parse_settings(
                 kGood,
                 "b",
                 std::vector<std::string>{"--train.steps=500", "--model.vocab_size=4096"});
  const auto changes = changed_settings(*a, *b);
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].key, "model.vocab_size");
  EXPECT_EQ(changes[0].was, "not set");
  EXPECT_EQ(changes[0].change, Change::kFixed);
  EXPECT_EQ(changes[1].was, "300");
  EXPECT_EQ(changes[1].now, "500");
  EXPECT_EQ(changes[1].change, Change::kFollows);
  const auto c = parse_settings(kGood, "c", std::vector<std::string>{"--checkpoint.every=7"});
  ASSERT_EQ(changed_settings(*a, *c).size(), 1u);
  EXPECT_EQ(changed_settings(*a, *c)[0].change, Change::kFree);
}

TEST(Settings, RefusesWithFileLineKeyAndWhatIsAllowed) {
  EXPECT_EQ(refusal("[train]\n\nsteps = -3\n"),
            "run.toml:3: train.steps is -3; it must be a whole number, 1 to 1000000000");
  EXPECT_EQ(refusal("[train]\nsteps = 1.5\n"),
            "run.toml:2: train.steps is a number with a fraction; it must be a whole number, 1 to "
            "1000000000");
  EXPECT_EQ(refusal("[train]\nsteps = \"many\"\n"),
            "run.toml:2: train.steps is text; it must be a whole number, 1 to 1000000000");
  EXPECT_EQ(refusal("[model]\nn_routed_experts = 1025\n"),
            "run.toml:2: model.n_routed_experts is 1025; it must be a whole number, 1 to 1024");
  EXPECT_EQ(refusal("[train]\nmicro_batch_tokens = 2097152\n"),
            "run.toml:2: train.micro_batch_tokens is 2097152; it must be a whole number, 1 to "
            "1048576");
  EXPECT_EQ(refusal("[optimizer]\nlr = nan\n"),
            "run.toml:2: optimizer.lr is nan; it must be a number, above 0, at most 10");
  EXPECT_EQ(refusal("[optimizer]\nlr = -inf\n"),
            "run.toml:2: optimizer.lr is -inf; it must be a number, above 0, at most 10");
  EXPECT_EQ(refusal("[train]\ncompute = \"fp8\"\n"),
            "run.toml:2: train.compute is \"fp8\"; it must be one of \"bf16\", \"f32\"");
  EXPECT_EQ(refusal("[log]\ntensorboard = 1\n"),
            "run.toml:2: log.tensorboard is a whole number; it must be true or false");
  EXPECT_EQ(refusal("[train]\nsteps = [1]\n"),
            "run.toml:2: train.steps is an array; it must be a whole number, 1 to 1000000000");
  EXPECT_EQ(
      refusal("[train]\nsteps = 1979-05-27\n"),
      "run.toml:2: train.steps is a date or time; it must be a whole number, 1 to 1000000000");
  EXPECT_EQ(refusal("train = 4\n"),
            "run.toml:1: train is a whole number; it must be a section, [train]");
  EXPECT_NE(refusal("[train]\nsteps = 99999999999999999999\n").find("run.toml:2:"),
            std::string::npos);
  EXPECT_NE(refusal("[train]\nsteps = 1\nsteps = 2\n").find("run.toml:3:"), std::string::npos);
  EXPECT_NE(refusal("[train\n").find("run.toml:1:"), std::string::npos);
  EXPECT_NE(refusal("\xC3\xA9 = 1\n").find("run.toml:1:"), std::string::npos);
  EXPECT_NE(refusal("[ = \"data\"\n").find("run.toml: is not TOML"), std::string::npos);
  EXPECT_NE(refusal("[train]\nx = \"\xff\"\n").find("run.toml:"), std::string::npos);
}

TEST(Settings, SuggestsTheNearestKey) {
  EXPECT_EQ(refusal("[train]\nstesp = 3\n"),
            "run.toml:2: unknown setting train.stesp; did you mean train.steps?");
  EXPECT_EQ(refusal("[schedule]\nsteps = 3\n"),
            "run.toml:2: unknown setting schedule.steps; did you mean train.steps?");
  EXPECT_EQ(refusal("[trian]\nsteps = 3\n"),
            "run.toml:1: unknown setting trian; did you mean train?");
  EXPECT_EQ(refusal("[model]\nhiden_size = 3\n"),
            "run.toml:2: unknown setting model.hiden_size; did you mean model.hidden_size?");
  EXPECT_EQ(refusal("[train]\nwarp_drive = 3\n"),
            "run.toml:2: unknown setting train.warp_drive; `ferry train --print-config` lists all");
  EXPECT_EQ(refusal("", {"--train.stps=3"}),
            "command line: unknown setting train.stps; did you mean train.steps?");
  EXPECT_EQ(refusal("", {"--train.steps=3x"}),
            "command line: train.steps is \"3x\"; it must be a whole number, 1 to 1000000000");
  EXPECT_EQ(refusal("", {"--optimizer.lr=nan"}),
            "command line: optimizer.lr is nan; it must be a number, above 0, at most 10");
  EXPECT_EQ(refusal("", {"--train.steps"}),
            "command line: \"train.steps\": settings are given as --section.key=value");
}

TEST(Settings, ChecksThemTogether) {
  const auto with = [](std::vector<std::string> o) { return refusal(kGood, std::move(o)); };
  EXPECT_NE(with({"--model.init=x"}).find("exclude each other"), std::string::npos);
  EXPECT_NE(
      with({"--model.init=x", "--model.preset="})
          .find(
              "leave it out, or all of [model] beside it: hidden_size, q_lora_rank, rope_scaling"),
      std::string::npos);
  EXPECT_NE(with({"--data.dir="}).find("data.dir is not set"), std::string::npos);
  EXPECT_NE(with({"--data.sequence_length=1000"}).find("multiple of data.sequence_length, 1000"),
            std::string::npos);
  EXPECT_NE(
      with({"--train.tokens_per_step=5000"}).find("multiple of train.micro_batch_tokens, 4096"),
      std::string::npos);
  EXPECT_NE(with({"--train.steps=1000000000",
                  "--train.tokens_per_step=999999995904",
                  "--schedule.decay_steps=1"})
                .find("together at most 9007199254740992 tokens"),
            std::string::npos);
  EXPECT_NE(with({"--schedule.warmup_steps=290"})
                .find("decay_steps is 60; it must be between 0 and the 10"),
            std::string::npos);
  const auto takes = [](std::vector<std::string> o) {
    return parse_settings(kGood, "run.toml", o).has_value();
  };
  EXPECT_EQ(with({"--supervisor.hang_verdict_s=0.49"}),
            "run.toml: supervisor.hang_verdict_s is 0.49; it must be 0 (never), or at least 0.5");
  EXPECT_EQ(with({"--supervisor.hang_patience_s=3"}),
            "run.toml: supervisor.hang_patience_s is 3; it must be 0 (never), or above "
            "supervisor.hang_verdict_s, 3, which must not be 0 then");
  EXPECT_NE(with({"--supervisor.hang_verdict_s=0", "--supervisor.hang_patience_s=9"})
                .find("hang_patience_s is 9"),
            std::string::npos);
  EXPECT_TRUE(takes({"--supervisor.hang_verdict_s=0.5", "--supervisor.hang_patience_s=0.6"}));
  EXPECT_TRUE(takes({"--supervisor.hang_verdict_s=0"}));
  EXPECT_NE(refusal("[data]\ndir = \"x\"\n").find("no model"), std::string::npos);
  EXPECT_NE(refusal("[model.rope_scaling]\nfactor = 2\n").find("has no type"), std::string::npos);
}

/// What is printed as a bound is the one that a model is held to.
TEST(Settings, BoundsOfAModelAreItsReaders) {
  Settings s;
  int compared = 0;
  for (const settings::Field& f : settings::fields_of(s)) {
    const std::string section = f.section;
    const bool scaling = section == "model.rope_scaling";
    if ((section != "model" && !scaling) || f.bounds.most > 1e299) continue;
    ++compared;
    nlohmann::json config = {
        {"model_type", "deepseek_v3"},
        {"vocab_size", 64},
        {"hidden_size", 32},
        {"num_hidden_layers", 2},
        {"intermediate_size", 64},
        {"moe_intermediate_size", 32},
        {"n_routed_experts", 4},
        {"num_experts_per_tok", 2},
        {"n_group", 1},
        {"topk_group", 1},
        {"num_attention_heads", 2},
        {"kv_lora_rank", 16},
        {"qk_nope_head_dim", 16},
        {"qk_rope_head_dim", 8},
        {"v_head_dim", 16},
        {"max_position_embeddings", 64},
        {"eos_token_id", 0},
        {"bos_token_id", 0},
        {"rope_scaling",
         {{"type", "yarn"}, {"factor", 2}, {"original_max_position_embeddings", 32}}}};
    const auto out_of_bounds = [&](double value) {
      nlohmann::json& place = scaling ? config["rope_scaling"] : config;
      if (value == std::floor(value))
        place[f.key] = static_cast<int64_t>(value);
      else
        place[f.key] = value;
      const auto read = models::deepseek_v3::parse_config(json_text(config), "config");
      return !read && read.error().message.find(f.key) != std::string::npos &&
             read.error().message.find(" from ") != std::string::npos &&
             read.error().message.find("must be a ") != std::string::npos;
    };
    const std::string name = section + "." + f.key;
    EXPECT_FALSE(out_of_bounds(f.bounds.most)) << name;
    EXPECT_TRUE(out_of_bounds(f.bounds.most + 1)) << name;
    if (name == "model.q_lora_rank") continue;  // 0 stands for none
    EXPECT_FALSE(out_of_bounds(f.bounds.above ? f.bounds.least + 1e-9 : f.bounds.least)) << name;
  }
  EXPECT_GT(compared, 25);
}

/// A step of pairs is no number of tokens, and what a model was balanced by stands still unless it is asked for, as
/// where it learns from tasks.
TEST(Settings, OfPairsHaveDefaultsOfTheirOwn) {
  const std::vector<std::string> pairs = {"--dpo.pairs=p",
                                          "--data.dir=",
                                          "--model.preset=",
                                          "--model.init=m",
                                          "--train.tokens_per_step=77"};
  const auto of = [&](const std::string& toml) {
    auto s = parse_settings(toml, "run.toml", pairs);
    EXPECT_TRUE(s) << s.error().message;
    return s ? s->train : TrainSettings{};
  };
  EXPECT_EQ(of("").balance_alpha, 0);
  EXPECT_EQ(of("").bias_update_speed, 0);
  EXPECT_EQ(of("[train]\nbalance_alpha = 0.25\n").balance_alpha, 0.25);
  EXPECT_EQ(of("[train]\nbias_update_speed = 1e-3\n").bias_update_speed, 1e-3);
  EXPECT_EQ(of("[train]\nbias_update_speed = 1e-3\n").balance_alpha, 0);
  const std::vector<std::string> tasks = {
      "--rl.tasks=t", "--rl.held_out=h", "--data.dir=", "--model.preset=", "--model.init=m"};
  for (const auto& [toml, expected] :
       {std::pair{"", 0.0}, {"[train]\nbalance_alpha = 0.25\n", 0.25}}) {
    const auto learns = parse_settings(toml, "run.toml", tasks);
    ASSERT_TRUE(learns) << learns.error().message;
    EXPECT_EQ(learns->train.balance_alpha, expected);
    EXPECT_EQ(learns->train.bias_update_speed, 0);
  }
  const auto texts = parse_settings(kGood, "run.toml");
  ASSERT_TRUE(texts);
  EXPECT_EQ(texts->train.balance_alpha, TrainSettings{}.balance_alpha);
  EXPECT_EQ(texts->train.bias_update_speed, TrainSettings{}.bias_update_speed);
  EXPECT_NE(
      refusal(
          "[data]\nsequence_length = 1048576\n[model]\ninit = \"m\"\n[train]\nsteps = 1000000000\n"
          "micro_batch_tokens = 1048576\n[dpo]\npairs = \"p\"\n")
          .find("dpo.pairs_per_step 16"),
      std::string::npos);
}

TEST(Settings, NoPathBeginsWithATilde) {
  const auto with = [](const std::string& option) {
    const auto s = parse_settings(kGood, "run.toml", std::vector<std::string>{option});
    return s ? "" : s.error().message;
  };
  for (const char* path : {"~", "~/run", "~root/run"}) {
    const std::string said = with(fmt::format("--checkpoint.dir={}", path));
    EXPECT_EQ(said.find(fmt::format(
                  "command line: checkpoint.dir is \"{}\"; \"~\" is no home folder", path)),
              0u)
        << said;
  }
  EXPECT_NE(with("--data.dir=~/data").find("write the whole path"), std::string::npos);
  EXPECT_NE(refusal("[data]\ndir = \"~/data\"\n").find("run.toml:2: data.dir is \"~/data\""),
            std::string::npos);
  // What a checkpoint of an earlier version holds is read as long as it lies there.
  const auto stored = parse_stored_settings(
      "[model]\npreset = \"small\"\n[data]\ndir = \"~/data\"\n", "state.json");
  ASSERT_TRUE(stored) << stored.error().message;
  EXPECT_EQ(stored->data.dir, "~/data");
  for (const char* path : {"./~/run", "~run", "run~", "a/~/b"})
    EXPECT_EQ(with(fmt::format("--checkpoint.dir={}", path)), "");
}

TEST(Settings, AbsentFileIsNamed) {
  const auto r = read_settings("/nonexistent/run.toml");
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().code, Code::kNotFound);
}

}  // namespace
}  // namespace ferry
