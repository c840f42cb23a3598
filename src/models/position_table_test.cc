// The table of positions: none before a pass, as long as passes need, and as large as is announced.
#include "models/position_table.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "device/stand_in_device.h"
#include "models/registry.h"

namespace ferry::models {
namespace {

constexpr int64_t kPositions = int64_t{1} << 20;
constexpr ops::RopeConfig kRope{.dim = 8};

ops::Segments of_length(int32_t tokens, Device& device) {
  return ops::Segments::packed(std::vector<int32_t>{tokens}, device);
}

TEST(PositionTable, IsAsLongAsPassesNeedAndAsLargeAsItSays) {
  StandInDevice device(DeviceKind::kCpu);
  PositionTable table(kRope, 5000, device);
  const auto taken = [&](int32_t tokens) {
    table.reach(of_length(tokens, device));  // whose own memory is free again
    return static_cast<int64_t>(device.memory_use().live_bytes);
  };
  const auto peak = [&] { return static_cast<int64_t>(device.memory_use().peak_bytes); };
  EXPECT_EQ(peak(), 0);
  EXPECT_EQ(taken(1), table.bytes(1));
  EXPECT_EQ(table.rope().cos.dim(0), 1024);
  EXPECT_EQ(taken(1024), table.bytes(1));
  EXPECT_EQ(taken(1025), table.bytes(1025));
  EXPECT_EQ(table.rope().cos.dim(0), 2048);
  EXPECT_EQ(taken(3), table.bytes(1025)) << "it was made shorter";
  EXPECT_EQ(taken(4999), table.bytes(5000));
  EXPECT_EQ(table.rope().sin.dim(0), 5000) << "more than the model has";
  EXPECT_EQ(table.bytes(kPositions), 5000 * 8 * 4);
  EXPECT_EQ(peak(), table.bytes(5000) + 2 * 4 * 4999) << "two tables at once";
}

/// As its config.json says, which is all that is known before the first pass.
void expect_no_memory(const std::string& config) {
  StandInDevice device(DeviceKind::kCpu);
  const auto model = make_model(config, "config.json", device, DType::kBF16, std::nullopt);
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ((*model)->max_positions(), kPositions);
  EXPECT_EQ(device.memory_use().peak_bytes, 0u);
  EXPECT_LT((*model)->position_bytes(100), (*model)->position_bytes(kPositions) / 1000);
}

TEST(PositionTable, AModelOfManyPositionsTakesNothingForThemWhenItIsMade) {
  expect_no_memory(R"({"model_type": "llama", "vocab_size": 64, "hidden_size": 16,
      "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
      "max_position_embeddings": 1048576, "bos_token_id": 0, "eos_token_id": 1})");
  expect_no_memory(R"({"model_type": "deepseek_v3", "vocab_size": 64, "hidden_size": 16,
      "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
      "n_routed_experts": 0, "first_k_dense_replace": 1, "q_lora_rank": null, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
      "qk_rope_head_dim": 8, "v_head_dim": 8, "num_nextn_predict_layers": 0,
      "max_position_embeddings": 1048576, "bos_token_id": 0, "eos_token_id": 1})");
}

}  // namespace
}  // namespace ferry::models
