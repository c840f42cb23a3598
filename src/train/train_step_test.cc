// What a step asks of the host: that it waits for the device once, however many micro-batches,
// experts and matrices there are.
#include "train/train_step.h"

#include <gtest/gtest.h>

#include "device/cpu/cpu_device.h"
#include "models/registry.h"

namespace ferry {
namespace {

constexpr const char* kConfig =
    R"({"model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 16,
  "num_hidden_layers": 3, "first_k_dense_replace": 1, "intermediate_size": 24,
  "moe_intermediate_size": 8, "n_routed_experts": 4, "n_shared_experts": 1,
  "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "topk_method": "noaux_tc",
  "scoring_func": "sigmoid", "norm_topk_prob": true, "routed_scaling_factor": 1.5,
  "num_attention_heads": 2, "q_lora_rank": null, "kv_lora_rank": 8, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 4, "v_head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
  "max_position_embeddings": 64, "num_nextn_predict_layers": 1, "initializer_range": 0.1,
  "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 1})";

data::Batch batch_of(int32_t first) {
  data::Batch b;
  for (int32_t t = 0; t < 12; ++t) {
    b.tokens.push_back((first + t) % 40);
    b.next.push_back((first + t + 1) % 40);
    b.mtp_labels.push_back(t + 1 < 12 ? (first + t + 2) % 40 : -1);
  }
  b.labels = b.next;
  b.segment_lengths = {5, 7};
  b.label_bytes = 12;
  return b;
}

TEST(TrainStep, WaitsForTheDeviceOnce) {
  for (const auto kind : {OptimizerSettings::Kind::kAdamW, OptimizerSettings::Kind::kMuon}) {
    auto model = models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
    ASSERT_TRUE(model) << model.error().message;
    models::initialise(**model, 3);
    Optimizer optimizer({.kind = kind}, (*model)->weights());
    TrainStep step(**model, optimizer, {});
    const std::vector<data::Batch> batches = {batch_of(1), batch_of(9), batch_of(20)};
    double first = 0, last = 0;
    for (int64_t i = 0; i < 4; ++i) {
      const uint64_t waits = cpu_device().stream().waits();
      const StepGradients g = step.gradients(i, batches);
      EXPECT_EQ(cpu_device().stream().waits(), waits + 1);
      EXPECT_TRUE(g.finite);
      EXPECT_GT(g.norm, 0);
      EXPECT_GT(g.balance_loss, 0);
      EXPECT_GT(g.mtp_loss.value_or(0), 0);
      step.update(0.02);
      EXPECT_EQ(cpu_device().stream().waits(), waits + 1);
      (i == 0 ? first : last) = g.loss;
    }
    EXPECT_LT(last, first);
  }
}

}  // namespace
}  // namespace ferry
