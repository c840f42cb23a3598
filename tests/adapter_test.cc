// Adapters (LoRA) against PEFT: logits and gradients with those that it made; and what Ferry promises of its own:
// the model that is trained, the model that answers with the adapter and the merged directory are one, to the bit.
// Golden files: tools/oracle/make_adapter_goldens.py.
#include <gtest/gtest.h>

#include <numeric>

#include "adapter/adapted_source.h"
#include "adapter/trained_adapter.h"
#include "autograd/tape.h"
#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "golden.h"
#include "ops/add/add.h"
#include "probe/directory_model.h"
#include "rl/policy_step.h"
#include "small_model.h"

namespace ferry {
namespace {

using models::MlaForm;

std::string folder(const std::string& name) { return join_path(::testing::TempDir(), name); }

void save(models::CausalLm& model, const std::string& path, DType matrices = DType::kF32) {
  ModelContents c;
  c.tensors = stored_weights(model.weights(), model.weight_aliases(), matrices);
  c.texts[kConfigName] = model.config_json(matrices == DType::kF32 ? "float32" : "bfloat16");
  const Result<SaveReport> saved = write_model_dir(path, c);
  ASSERT_TRUE(saved) << saved.error().message;
}

/// As convert merges.
void save_merged(ModelSource& from, const std::string& path) {
  auto model = probe::model_of(from, cpu_device(), DType::kF32, false);
  ASSERT_TRUE(model) << model.error().message;
  ModelContents c;
  c.tensors = weights_to_convert(
      from, model->model->weights(), model->model->weight_aliases(), DType::kF32, [] {});
  c.texts[kConfigName] = model->model->config_json("float32");
  const Result<SaveReport> saved = write_model_dir(path, c);
  ASSERT_TRUE(saved) << saved.error().message;
}

std::vector<float> logits(models::CausalLm& model, const models::TokenBatch& b, MlaForm form) {
  const Tensor hidden = model.forward(b.tokens, b.segments, {.mla_form = form}, nullptr);
  return all_logits(model, hidden).to_f32();
}

std::unique_ptr<models::TrainableLm> loaded(ModelSource& from, DType compute = DType::kF32) {
  auto opened = probe::model_of(from, cpu_device(), compute, true);
  if (!opened) {
    ADD_FAILURE() << opened.error().message;
    return nullptr;
  }
  return std::move(opened->model);
}

struct PeftCase {
  const char* name;
  const char* base;
};

class Peft : public ::testing::TestWithParam<PeftCase> {
 protected:
  Peft()
      : golden_(GetParam().base),
        expected_(*SafetensorsFile::open(join_path(path_, "expected.safetensors"))) {}
  std::vector<float> expected(const std::string& name) const {
    return expected_.load(name, cpu_device())->to_f32();
  }

  const std::string path_ = kGoldens + "adapters/" + GetParam().name;
  Golden golden_;
  SafetensorsFile expected_;
};

TEST_P(Peft, LogitsWithItsAdapterAndMerged) {
  const std::string base = folder("base");
  save(*golden_.model(), base);
  const auto adapted = open_adapted(base, path_, DType::kF32);
  ASSERT_TRUE(adapted) << adapted.error().message;
  const models::TokenBatch batch = batch_of(golden_);
  const auto model = loaded(**adapted);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed})
    EXPECT_LT(relative_error(logits(*model, batch, form), expected("logits")), 1e-5);
  EXPECT_GT(relative_error(logits(*golden_.model(), batch, MlaForm::kExpanded), expected("logits")),
            0.01);
  const std::string merged = folder("merged");
  save_merged(**adapted, merged);
  const auto alone = open_model_source(merged);
  ASSERT_TRUE(alone) << alone.error().message;
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto with = open_adapted(base, path_, compute);
    EXPECT_EQ(logits(*loaded(**with, compute), batch, MlaForm::kAbsorbed),
              logits(*loaded(**alone, compute), batch, MlaForm::kAbsorbed));
  }
}

/// The gradients of one batch by A and B, whose names they have.
std::map<std::string, std::vector<float>> gradients(models::TrainableLm& model,
                                                    TrainedAdapter& adapter,
                                                    const models::TokenBatch& batch,
                                                    const models::LossOptions& options) {
  Tape tape(&ops::accumulate);
  models::Losses losses;
  {
    const Tape::Recording recording(&tape);
    losses = model.losses(batch, options);
  }
  std::map<std::string, std::vector<float>> found;
  const auto keep = [&](const Tensor& factor, const Tensor& gradient) {
    for (const Weight* w : adapter.factors())
      if (w->value.storage() == factor.storage()) found[w->name] = gradient.to_f32();
  };
  const std::vector<float> one = {1.0f};
  tape.backward(losses.main,
                Tensor::from_f32(one, {1}, cpu_device()),
                {.leaf_ready = [&](const Tensor& leaf, const Tensor& gradient) {
                  adapter.take(leaf, gradient, keep);
                }});
  return found;
}

TEST_P(Peft, GradientsOfItsFactors) {
  const auto model = golden_.model();
  const models::TokenBatch batch = batch_of(golden_);
  const Result<Adapter> stored = Adapter::open(path_);
  ASSERT_TRUE(stored) << stored.error().message;
  AdapterConfig config = stored->config();
  std::set<std::string> targets;
  for (const auto& [weight, f] : stored->factors()) targets.emplace(module_of(weight));
  config.targets.assign(targets.begin(), targets.end());
  auto adapter = TrainedAdapter::create(config, {}, model->weights(), model->blocks(), 1);
  ASSERT_TRUE(adapter) << adapter.error().message;
  const Result<void> restored = adapter->restore(*stored);
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_LT(relative_error(logits(*model, batch, MlaForm::kExpanded), expected("logits")), 1e-5);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    const auto found = gradients(*model,
                                 *adapter,
                                 batch,
                                 {.mla_form = form,
                                  .recompute = models::Recompute::kLayers,
                                  .scale = 1.0f / static_cast<float>(batch.tokens.dim(0) - 1)});
    ASSERT_EQ(found.size(), 2 * stored->factors().size());
    for (const auto& [name, gradient] : found)
      EXPECT_LT(relative_error(gradient, expected("grad." + name)), 1e-4) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Adapters,
                         Peft,
                         ::testing::Values(PeftCase{"llama_qv", "llama_plain"},
                                           PeftCase{"qwen2_all", "qwen2_tied"},
                                           PeftCase{"v3_latent", "v3_full"}),
                         [](const auto& c) { return std::string(c.param.name); });

// ---------------------------------------------------------------- Ferry's own

/// A small model with an adapter that has learnt something, and what it is a model with.
struct Learning {
  explicit Learning(const char* architecture, DType compute = DType::kBF16)
      : model(small_model(architecture, compute, cpu_device())) {
    // In bf16 as the files have it: what rounding would change is not the adapter's.
    for (Weight* w : model->weights()) before.push_back(w->value.to_f32());
    auto made = TrainedAdapter::create({.rank = 3, .alpha = 6, .targets = {kAllLinear}},
                                       {.root = std::string(64, 'a')},
                                       model->weights(),
                                       model->blocks(),
                                       7);
    if (!made) ADD_FAILURE() << made.error().message;
    adapter.emplace(std::move(*made));
    optimizer.emplace(OptimizerSettings{}, adapter->factors());
  }

  std::unique_ptr<models::TrainableLm> model;
  std::vector<std::vector<float>> before;  // of the model's weights
  std::optional<TrainedAdapter> adapter;
  std::optional<Optimizer> optimizer;
};

data::Batch some_batch() {
  data::Batch b;
  const auto documents = small_documents();
  for (const auto& d : documents) {
    b.segment_lengths.push_back(static_cast<int32_t>(d.size()));
    for (size_t i = 0; i < d.size(); ++i) {
      b.tokens.push_back(d[i]);
      b.labels.push_back(i + 1 < d.size() ? d[i + 1] : -1);
    }
  }
  b.next.assign(b.tokens.size(), 0);
  b.mtp_labels.assign(b.tokens.size(), -1);
  return b;
}

class EachArchitecture : public ::testing::TestWithParam<const char*> {};

TEST_P(EachArchitecture, OnlyTheFactorsAreTrainedAndWhatIsTrainedIsWhatIsSaved) {
  Learning l(GetParam());
  TrainStep step(*l.model, *l.optimizer, {}, nullptr, &*l.adapter);
  const std::vector<data::Batch> batches = {some_batch(), some_batch()};
  double first = 0, last = 0;
  for (int64_t i = 0; i < 8; ++i) {
    const StepGradients g = step.gradients(i, batches);
    ASSERT_TRUE(g.finite);
    (i == 0 ? first : last) = g.loss;
    step.update(1e-2);
  }
  EXPECT_LT(last, first - 0.05);
  // The base as it was, saved by itself; the adapter beside it: together they are the model that was trained.
  const auto base = small_model(GetParam(), DType::kBF16, cpu_device());
  const std::string base_path = folder("base"), adapter_path = folder("adapter");
  save(*base, base_path);
  ModelContents c;
  c.tensors = l.adapter->tensors();
  c.texts[kAdapterConfigName] = to_json(l.adapter->config());
  ASSERT_TRUE(write_model_dir(adapter_path, c));
  const auto adapted = open_adapted(base_path, adapter_path, DType::kBF16);
  ASSERT_TRUE(adapted) << adapted.error().message;
  const auto again = loaded(**adapted);
  const std::vector<Weight*> trained = l.model->weights(), read = again->weights();
  size_t moved = 0;
  for (size_t i = 0; i < trained.size(); ++i) {
    const std::vector<float> values = trained[i]->value.to_f32();
    EXPECT_EQ(values, read[i]->value.to_f32()) << trained[i]->name;
    moved += values != l.before[i];
  }
  EXPECT_EQ(moved, l.adapter->factors().size() / 2);
}

INSTANTIATE_TEST_SUITE_P(Small,
                         EachArchitecture,
                         ::testing::Values("deepseek_v3", "llama", "qwen2"),
                         [](const auto& c) { return std::string(c.param); });

TEST(Adapter, BeginsAsItsBase) {
  Learning l("llama");
  const std::vector<Weight*> weights = l.model->weights();
  for (size_t i = 0; i < weights.size(); ++i)
    EXPECT_EQ(weights[i]->value.to_f32(), l.before[i]) << weights[i]->name;
  l.adapter->merge();
  for (size_t i = 0; i < weights.size(); ++i)
    EXPECT_EQ(weights[i]->value.to_f32(), l.before[i]) << weights[i]->name;
}

TEST(Adapter, TargetsThatAreNotThereAreRefusedByName) {
  const auto model = small_model("deepseek_v3", DType::kBF16, cpu_device());
  const auto refusal = [&](const std::string& target, int64_t rank = 2) {
    const auto made = TrainedAdapter::create(
        {.rank = rank, .alpha = 4, .targets = {target}}, {}, model->weights(), model->blocks(), 1);
    return made ? "" : made.error().message;
  };
  EXPECT_EQ(refusal("kv_b_proj"), "");
  for (const char* const name : {"gate_proj", "embed_tokens", "eh_proj", "gate", "k_proj"}) {
    EXPECT_NE(refusal(name).find(name), std::string::npos) << name;
    EXPECT_NE(refusal(name).find("kv_a_proj_with_mqa"), std::string::npos) << name;
  }
  EXPECT_NE(refusal("o_proj", 1000).find("lora.rank 1000"), std::string::npos);
}

/// Finite factors can have a product that is not: it is no weight.
TEST(Adapter, WhatIsMergedMustBeNumbers) {
  const auto model = small_model("llama", DType::kF32, cpu_device());
  const std::string base_path = folder("base"), path = folder("adapter");
  save(*model, base_path);
  const std::string weight = "model.layers.0.self_attn.q_proj.weight";
  ModelContents c;
  for (const Weight* w : model->weights())
    if (w->name == weight)
      for (const char factor : {'A', 'B'}) {
        const Shape shape = factor == 'A' ? Shape{2, w->dim(1)} : Shape{w->dim(0), 2};
        c.tensors.push_back({.name = adapter_tensor_name(weight, factor),
                             .value = Tensor::from_f32(
                                 std::vector<float>(static_cast<size_t>(shape.count()), 1e30f),
                                 shape,
                                 cpu_device())});
      }
  c.texts[kAdapterConfigName] =
      to_json(AdapterConfig{.rank = 2, .alpha = 2, .targets = {"q_proj", "query_key_value"}});
  ASSERT_TRUE(write_model_dir(path, c));
  const auto adapted = open_adapted(base_path, path, DType::kF32);
  ASSERT_TRUE(adapted) << "a name that this model does not have is PEFT's way: "
                       << adapted.error().message;
  const auto merged = (*adapted)->load(weight, cpu_device(), DType::kF32);
  ASSERT_FALSE(merged);
  EXPECT_EQ(merged.error().code, Code::kCorrupt);
  EXPECT_NE(merged.error().message.find(path), std::string::npos) << merged.error().message;
  EXPECT_NE(merged.error().message.find(weight), std::string::npos) << merged.error().message;
}

TEST(Adapter, CodesHaveNone) {
  const std::string path = folder("codes");
  ModelContents c;
  c.tensors.push_back(
      {.name = "w.weight", .value = Tensor::zeros({4, 4}, DType::kF8E4M3, cpu_device())});
  c.texts["config.json"] = "{}";
  ASSERT_TRUE(write_model_dir(path, c));
  const auto dir = ModelDir::open(path);
  ASSERT_TRUE(dir) << dir.error().message;
  const auto codes = check_adaptable(*dir, "w.weight", "lora");
  ASSERT_FALSE(codes);
  EXPECT_NE(codes.error().message.find("stores as codes"), std::string::npos);
  EXPECT_FALSE(check_adaptable(*dir, "v.weight", "lora"));
}

/// Routed experts, which Ferry does not train adapters of, can have some; and rows of a matrix are
/// those of the whole.
TEST(Adapter, OfExpertsAndRowByRow) {
  const auto model = small_model("deepseek_v3", DType::kF32, cpu_device());
  const std::string base_path = folder("base"), path = folder("adapter");
  save(*model, base_path);
  const std::string of_expert = "model.layers.1.mlp.experts.5.up_proj.weight",
                    dense = "model.layers.0.mlp.down_proj.weight";
  ModelContents c;
  uint64_t seed = 0;
  for (const auto& [weight, out, in] : {std::tuple{of_expert, 12, 24}, std::tuple{dense, 24, 40}})
    for (const char factor : {'A', 'B'}) {
      const Shape shape = factor == 'A' ? Shape{2, in} : Shape{out, 2};
      const Random random(++seed, RandomPurpose::kTest, 3);
      std::vector<float> values(static_cast<size_t>(shape.count()));
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.normal(i));
      c.tensors.push_back({.name = adapter_tensor_name(weight, factor),
                           .value = Tensor::from_f32(values, shape, cpu_device())});
    }
  c.texts[kAdapterConfigName] =
      to_json(AdapterConfig{.rank = 2, .alpha = 3, .targets = {"up_proj", "down_proj"}});
  ASSERT_TRUE(write_model_dir(path, c));
  const auto adapted = open_adapted(base_path, path, DType::kF32);
  ASSERT_TRUE(adapted) << adapted.error().message;
  const auto base = open_model_source(base_path);
  const auto changed = [&](const std::string& name) {
    const Tensor plain = *(*base)->load(name, cpu_device(), DType::kF32),
                 merged = *(*adapted)->load(name, cpu_device(), DType::kF32);
    return plain.to_f32() != merged.to_f32();
  };
  EXPECT_TRUE(changed(of_expert));
  EXPECT_TRUE(changed(dense));
  EXPECT_FALSE(changed("model.layers.1.mlp.experts.4.up_proj.weight"));
  const Tensor stack = *(*adapted)->load_stacked(
      "model.layers.1.mlp.experts.*.up_proj.weight", 8, cpu_device(), DType::kF32);
  EXPECT_EQ(stack.slice(0, 5, 6).to_f32(),
            (*adapted)->load(of_expert, cpu_device(), DType::kF32)->to_f32());
  const std::vector<float>
      whole = (*adapted)->load(dense, cpu_device(), DType::kF32)->to_f32(),
      rows = (*adapted)->load_rows(dense, 5, 7, cpu_device(), DType::kF32)->to_f32();
  EXPECT_EQ(rows, std::vector<float>(whole.begin() + 5 * 40, whole.begin() + 12 * 40));
}

TEST(Adapter, AnswersAreWhatIsTrained) {
  Learning l("deepseek_v3");
  TrainStep step(*l.model, *l.optimizer, {.mla_form = MlaForm::kAbsorbed}, nullptr, &*l.adapter);
  rl::PolicyStep policy(*l.model, step, nullptr, {.minibatches = 1, .micro_batch_tokens = 100});
  const rl::TaskPrompt prompt{.ids = {3, 4, 5, 6}};
  double moved = 0;
  for (uint64_t round = 0; round < 3; ++round) {
    engine::Engine engine(*l.model, {.cache_tokens = 4096, .running = 8});
    std::map<engine::RequestId, size_t> place;
    std::vector<rl::Rollout> drawn(6);
    for (size_t i = 0; i < drawn.size(); ++i) {
      engine::Request r{.prompt = prompt.ids, .options = {}, .salt = ""};
      r.options.sampling.temperature = 1;
      r.options.sampling.seed = 10 * round + i;
      r.options.tokens_max = 10;
      r.options.top_log_probs = 0;
      place[*engine.submit(r)] = i;
    }
    while (!engine.idle())
      for (const engine::Progress& p : engine.step())
        for (const engine::Token& t : p.tokens) {
          drawn[place.at(p.id)].tokens.push_back(t.id);
          drawn[place.at(p.id)].log_probs.push_back(t.log_prob);
        }
    std::vector<rl::Lesson> lessons;
    for (const rl::Rollout& r : drawn)
      lessons.push_back({&prompt, &r, lessons.size() % 2 == 0 ? 1.0 : -1.0});
    const rl::PolicyStepReport report = policy.run(lessons, 1e-2, [] {});
    EXPECT_EQ(report.compared, 60);
    EXPECT_EQ(report.mismatches, 0) << "in round " << round;
    moved += report.gradient_norm;
  }
  EXPECT_GT(moved, 0);
}

}  // namespace
}  // namespace ferry
