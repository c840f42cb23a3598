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

/// What a checkpoint has of a step's experts is compared with it.
TEST(TrainStep, KnowsInHowManyLayersItChoosesExperts) {
  auto model = *models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  models::initialise(*model, 3);
  Optimizer optimizer({}, model->weights());
  TrainStep step(*model, optimizer, {.mtp_every = 2});
  const std::vector<data::Batch> batches = {batch_of(1), batch_of(9)};
  for (int64_t s = 0; s < 4; ++s) {
    EXPECT_EQ(step.routed_layers(s), s % 2 == 0 ? 3 : 2) << s;
    EXPECT_TRUE(fits(
        step.routing(s, batches), batches, step.routed_layers(s), model->routed_layers().top_k));
  }
}

struct Made {
  StepGradients step;
  std::vector<std::vector<float>> weights;  // when it was made
};

/// A model that makes steps of the same micro-batches, with experts that it is given.
class Anticipating {
 public:
  explicit Anticipating(DType compute) {
    model_ = *models::make_model(kConfig, "config", cpu_device(), compute, DType::kF32);
    models::initialise(*model_, 3);
    optimizer_.emplace(OptimizerSettings{}, model_->weights());
    step_.emplace(*model_, *optimizer_, StepSettings{});
  }
  void make(int64_t number, const StepRouting& routing) {
    step_->prepare(number, batches_, {}, routing);
    made_.step = *step_->commit();
    step_->update(0.05);
    made_.weights.clear();
    for (const Weight* w : model_->weights()) made_.weights.push_back(w->value.to_f32());
  }
  StepRouting routing(int64_t number) { return step_->routing(number, batches_); }
  const Made& made() const { return made_; }

 private:
  std::vector<data::Batch> batches_ = {batch_of(1), batch_of(9), batch_of(20)};
  std::unique_ptr<models::TrainableLm> model_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainStep> step_;
  Made made_;
};

std::vector<int32_t> flat(const StepRouting& routing) {
  std::vector<int32_t> all;
  for (const std::vector<Tensor>& layers : routing)
    for (const Tensor& t : layers)
      for (const int32_t id : t.to_i32()) all.push_back(id);
  return all;
}

// What the weights would choose anyway changes no bit, the MTP module included; what older ones chose does.
TEST(TrainStep, IsGivenTheExpertsThatOlderWeightsChose) {
  for (const DType compute : {DType::kBF16, DType::kF32}) {
    Anticipating own(compute), same(compute), older(compute);
    const StepRouting first = older.routing(0);
    for (int64_t i = 0; i < 6; ++i) {
      own.make(i, {});
      same.make(i, same.routing(i));
      EXPECT_EQ(same.made().step.loss, own.made().step.loss) << i;
      EXPECT_EQ(same.made().step.norm, own.made().step.norm) << i;
      EXPECT_EQ(same.made().weights, own.made().weights) << i;
      older.make(i, first);
    }
    EXPECT_EQ(flat(older.routing(0)).size(), flat(first).size());
    EXPECT_NE(flat(own.routing(6)), flat(first)) << "too few steps to tell";
    EXPECT_NE(older.made().weights, own.made().weights);
  }
}

// A step chooses for the next one in the middle of itself.
TEST(TrainStep, ChoosingForTheNextStepLeavesWhatWasPrepared) {
  Anticipating alone(DType::kBF16);
  alone.make(0, {});
  auto model = *models::make_model(kConfig, "config", cpu_device(), DType::kBF16, DType::kF32);
  models::initialise(*model, 3);
  Optimizer optimizer({}, model->weights());
  TrainStep step(*model, optimizer, {});
  const std::vector<data::Batch> batches = {batch_of(1), batch_of(9), batch_of(20)};
  const std::vector<data::Batch> next = {batch_of(2), batch_of(30)};
  step.prepare(0, batches);
  static_cast<void>(step.routing(1, next));
  const StepGradients g = *step.commit();
  static_cast<void>(step.routing(1, next));
  step.update(0.05);
  EXPECT_EQ(g.loss, alone.made().step.loss);
  size_t i = 0;
  for (const Weight* w : model->weights())
    EXPECT_EQ(w->value.to_f32(), alone.made().weights[i++]) << w->name;
}

}  // namespace
}  // namespace ferry
