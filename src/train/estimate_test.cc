// What a run is told not to begin with.
#include "train/estimate.h"

#include <gtest/gtest.h>

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
