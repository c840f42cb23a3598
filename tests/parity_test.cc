// The model against Transformers: logits, chosen experts, every gradient, ten AdamW steps.
// Golden files: tools/oracle.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "autograd/tape.h"
#include "device/cpu/cpu_device.h"
#include "golden.h"
#include "ops/adamw/adamw.h"
#include "ops/add/add.h"

namespace ferry {
namespace {

using models::LossOptions;
using models::MlaForm;
using models::TrainableLm;

class Parity : public ::testing::TestWithParam<const char*> {
 protected:
  Golden golden_{GetParam()};
};

TEST_P(Parity, LogitsAndChosenExpertsInBothForms) {
  const auto model = golden_.model();
  const models::TokenBatch batch = batch_of(golden_);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    models::ForwardTrace trace;
    trace.keep_layer_outputs = true;
    const Tensor hidden = model->forward(batch.tokens, batch.segments, {.mla_form = form}, &trace);
    std::vector<int64_t> rows(static_cast<size_t>(hidden.dim(0)));
    std::iota(rows.begin(), rows.end(), 0);
    for (size_t l = 0; l < trace.layer_outputs.size(); ++l)
      EXPECT_LT(relative_error(trace.layer_outputs[l].to_f32(),
                               golden_.floats("hidden." + std::to_string(l))),
                1e-5)
          << "layer " << l;
    EXPECT_LT(relative_error(model->logits(hidden, rows).to_f32(), golden_.floats("logits")), 1e-5);
    size_t moe = 0;
    for (int64_t l = 0; l < golden_.json().at("config").at("num_hidden_layers").get<int64_t>();
         ++l) {
      const std::string name = "experts." + std::to_string(l);
      if (!golden_.json().at("params").contains("model.layers." + std::to_string(l) +
                                                ".mlp.gate.weight"))
        continue;
      ASSERT_LT(moe, trace.experts.size());
      const Tensor& chosen = trace.experts[moe++];
      std::vector<int32_t> got = chosen.to_i32();
      for (auto row = got.begin(); row != got.end(); row += chosen.dim(1))
        std::sort(row, row + chosen.dim(1));
      EXPECT_EQ(got, golden_.ints(name));
    }
  }
}

std::map<const Storage*, Tensor> gradients(TrainableLm& model,
                                           const models::TokenBatch& batch,
                                           LossOptions options,
                                           double* loss) {
  for (Weight* w : model.weights()) w->value.set_needs_grad(w->trained());
  const float scale = 1.0f / static_cast<float>(batch.tokens.dim(0) - 1);
  Tape tape(&ops::accumulate);
  models::Losses losses;
  {
    const Tape::Recording recording(&tape);
    options.scale = scale;
    losses = model.losses(batch, options);
  }
  *loss = static_cast<double>(losses.main.to_f32().at(0));
  std::map<const Storage*, Tensor> grads;
  const std::vector<float> one = {1.0f};
  tape.backward(losses.main,
                Tensor::from_f32(one, {1}, cpu_device()),
                {.leaf_ready = [&](const Tensor& leaf, Tensor g) {
                  grads[leaf.storage().get()] = std::move(g);
                }});
  return grads;
}

TEST_P(Parity, EveryGradientInBothFormsAndRecomputed) {
  const auto model = golden_.model();
  const models::TokenBatch batch = batch_of(golden_);
  for (const auto recompute : {models::Recompute::kNone, models::Recompute::kLayers}) {
    for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
      double loss = 0;
      const auto grads =
          gradients(*model, batch, {.mla_form = form, .recompute = recompute}, &loss);
      EXPECT_NEAR(loss, static_cast<double>(golden_.floats("loss").at(0)), 1e-5 * loss);
      for (const Weight* w : model->weights()) {
        if (!w->trained()) continue;
        ASSERT_TRUE(grads.contains(w->value.storage().get())) << w->name;
        const std::vector<float> got = grads.at(w->value.storage().get()).to_f32();
        size_t from = 0;
        for (const std::string& name : checkpoint_names(*w)) {
          const std::vector<float> expected = golden_.floats("grad." + name);
          const std::vector<float> part(got.begin() + static_cast<long>(from),
                                        got.begin() + static_cast<long>(from + expected.size()));
          EXPECT_LT(relative_error(part, expected), 1e-4)
              << name << (recompute == models::Recompute::kLayers ? " recomputed" : "");
          from += expected.size();
        }
      }
    }
  }
}

TEST_P(Parity, TenAdamWSteps) {
  const auto model = golden_.model();
  const models::TokenBatch batch = batch_of(golden_);
  const auto& adamw = golden_.json().at("adamw");
  std::map<const Storage*, std::pair<Tensor, Tensor>> moments;
  for (Weight* w : model->weights())
    moments[w->value.storage().get()] = {
        Tensor::zeros(w->value.shape(), DType::kF32, cpu_device()),
        Tensor::zeros(w->value.shape(), DType::kF32, cpu_device())};
  const std::vector<float> expected = golden_.floats("adamw_losses");
  for (size_t step = 0; step < expected.size(); ++step) {
    double loss = 0;
    const auto grads = gradients(*model, batch, {.mla_form = MlaForm::kExpanded}, &loss);
    EXPECT_NEAR(loss, static_cast<double>(expected[step]), 1e-5 * loss) << "step " << step;
    for (Weight* w : model->weights()) {
      if (!w->trained()) continue;
      const auto& [m, v] = moments.at(w->value.storage().get());
      ops::adamw_update(*w,
                        m,
                        v,
                        grads.at(w->value.storage().get()),
                        {.lr = adamw.at("lr"),
                         .beta1 = adamw.at("betas").at(0),
                         .beta2 = adamw.at("betas").at(1),
                         .eps = adamw.at("eps"),
                         .weight_decay = adamw.at("weight_decay"),
                         .step = static_cast<int64_t>(step) + 1},
                        1.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers,
                         Parity,
                         ::testing::Values("v2_group",
                                           "v2_lite",
                                           "v2_plain",
                                           "v3_full",
                                           "v3_qfull_nodense",
                                           "v3_tied_mscale",
                                           "v3_wide_eps",
                                           "v3_yarn_plain",
                                           "llama_plain",
                                           "llama_3",
                                           "llama_linear",
                                           "qwen2_tied",
                                           "qwen2_distill",
                                           "qwen2_yarn"));

}  // namespace
}  // namespace ferry
