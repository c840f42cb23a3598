// What a run is told not to begin with.
#include "train/estimate.h"

#include <gtest/gtest.h>

#include "base/fault.h"
#include "base/file.h"
#include "checkpoint/test_support.h"
#include "checkpoint/undone_checkpoints.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"

namespace ferry {
namespace {

TEST(Estimate, EachMemoryAndTheDiskIsAsked) {
  const Settings settings;
  const Estimate e{.memory_bytes = 3e9, .host_bytes = 4e9, .disk_bytes = 2e9};
  const MemoryAvailable little{3'500'000'000, " within ulimit -v"}, much{5'000'000'000, ""};
  const auto says = [&](const Result<void>& r, const char* words) {
    return !r && r.error().code == Code::kExhausted &&
           r.error().message.find(words) != std::string::npos;
  };
  EXPECT_TRUE(check_fits(e, settings, little, much, 3'000'000'000));
  EXPECT_TRUE(says(check_fits(e, settings, {2'000'000'000, ""}, much, 3'000'000'000), "run needs"));
  EXPECT_TRUE(says(check_fits(e, settings, {2'000'000'000, ""}, much, 3'000'000'000),
                   "lower train.micro_batch_tokens (4096), "));
  EXPECT_TRUE(says(check_fits(e, settings, much, little, 3'000'000'000), "within ulimit -v"));
  EXPECT_TRUE(says(check_fits(e, settings, much, little, 3'000'000'000), "memory of the host"));
  EXPECT_TRUE(says(check_fits(e, settings, much, much, 1'000'000'000), "checkpoints need"));
  EXPECT_NE(describe(e, settings).find("of the host's"), std::string::npos);
  EXPECT_EQ(describe({.memory_bytes = 3e9}, settings).find("host"), std::string::npos);
}

/// Checkpoints that are kept for a loss spike, or because of one, and the experts of tokens to come.
TEST(Estimate, CountsWhatALossSpikeMayTake) {
  const auto model = *models::make_model(
      R"({"model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 16,
  "num_hidden_layers": 3, "first_k_dense_replace": 1, "intermediate_size": 24,
  "moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": null, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 4, "v_head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "num_nextn_predict_layers": 1, "initializer_range": 0.1,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})",
      "config",
      cpu_device(),
      DType::kBF16,
      DType::kF32);
  Settings settings;
  settings.train.tokens_per_step = 100'000 * settings.train.micro_batch_tokens;
  settings.checkpoint.keep_last = 5;
  settings.checkpoint.keep_best = true;
  const auto of = [&] { return estimate(*model, settings, 0, nullptr, 0, 1000, 1e9); };
  const Estimate calm = of();
  EXPECT_EQ(calm.disk_bytes, 7000) << "and one that is being written";
  settings.train.rewind_every = 10;
  EXPECT_EQ(of().disk_bytes, 7000 + 7000) << "the place, and as many that are set aside";
  settings.train.anticipatory_steps = 50;
  // Of this step and the next one, in two layers and the MTP module's, two experts of each token, four bytes each.
  const double experts = 2.0 * 3 * 2 * 4 * static_cast<double>(settings.train.tokens_per_step);
  EXPECT_NEAR(of().memory_bytes - calm.memory_bytes, experts, 0.02 * experts);
}

/// What is set aside of undone steps is there already only for a run that counts such.
TEST(Estimate, WhatIsSetAsideIsThereForRunsThatGoBackAlone) {
  Settings settings;
  settings.checkpoint.dir = fresh_folder("estimate_undone");
  for (const int64_t step : {10, 20}) {
    ModelContents model;
    model.tensors = {{"w", random_tensor({7, 3}, 1)}};
    model.texts = {{"config.json", "{}"}};
    TrainingStateContents state;
    state.document = fmt::format(R"({{"step": {}}})", step);
    state.parts.push_back({StatePiece::whole("m", random_tensor({5}, 1))});
    ASSERT_TRUE(save_checkpoint(settings.checkpoint.dir, step, model, state));
  }
  ASSERT_TRUE(set_aside(settings.checkpoint.dir, {10, 20}));
  // Checkpoints of half of what is free: without two that are there three of them do not fit.
  const uint64_t half = *free_disk_bytes(settings.checkpoint.dir) / 2;
  const Estimate e{.disk_bytes = 3 * static_cast<double>(half)};
  const auto fits = [&] {
    return check_still_fits(e, settings, cpu_device(), {.model_bytes = half, .state_bytes = 0}, 1);
  };
  settings.train.rewind_every = 0;
  const Result<void> calm = fits();
  ASSERT_FALSE(calm);
  EXPECT_NE(calm.error().message.find("the checkpoints need about"), std::string::npos);
  settings.train.rewind_every = 10;
  EXPECT_TRUE(fits());
  // One that cannot be read just now takes its room, and is no reason not to begin.
  arm_faults("file.open:1:eio");
  EXPECT_FALSE(list_undone(settings.checkpoint.dir));
  arm_faults("file.open:1:eio");
  const Result<void> unread = fits();
  arm_faults("");
  EXPECT_TRUE(unread) << unread.error().message;
}

/// Of answers that are learnt from the longest is the smallest pass there is.
TEST(Estimate, WhatMayBeLoweredIsNamed) {
  Settings settings;
  settings.rl.tasks = "tasks.jsonl";
  settings.rl.tokens_max = 8000;
  settings.data.sequence_length = settings.train.micro_batch_tokens = 8021;
  const auto refusal = check_fits(
      {.memory_bytes = 3e9}, settings, {2'000'000'000, ""}, {2'000'000'000, ""}, 3'000'000'000);
  ASSERT_FALSE(refusal);
  EXPECT_NE(refusal.error().message.find(
                "lower rl.tokens_max (8000; the longest prompt has 21 tokens), "),
            std::string::npos)
      << refusal.error().message;
  settings.train.micro_batch_tokens = 16000;
  EXPECT_NE(check_fits({.memory_bytes = 3e9}, settings, {1, ""}, {1, ""}, 1)
                .error()
                .message.find("lower train.micro_batch_tokens (16000), "),
            std::string::npos);
}

}  // namespace
}  // namespace ferry
