// The model against Transformers: logits, chosen experts, every gradient, ten AdamW steps.
// Golden files: tools/oracle. Weights are drawn from the hash that tools/oracle/README.md defines.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "autograd/tape.h"
#include "base/file.h"
#include "base/random.h"
#include "checkpoint/safetensors.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "ops/adamw/adamw.h"
#include "ops/add/add.h"

namespace ferry {
namespace {

using models::LossOptions;
using models::MlaForm;
using models::TrainableLm;

const std::string kGoldens = std::string(FERRY_SOURCE_DIR) + "/testdata/goldens/";

uint64_t mixed(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// The checkpoint's names of a weight: one, or one for each expert if the name has a star.
std::vector<std::string> checkpoint_names(const Weight& w) {
  const size_t star = w.name.find('*');
  if (star == std::string::npos) return {w.name};
  std::vector<std::string> names;
  for (int64_t e = 0; e < w.value.dim(0); ++e)
    names.push_back(w.name.substr(0, star) + std::to_string(e) + w.name.substr(star + 1));
  return names;
}

class Golden {
 public:
  explicit Golden(const std::string& name)
      : json_(nlohmann::json::parse(*read_file(kGoldens + name + ".json"))),
        file_(*SafetensorsFile::open(kGoldens + name + ".safetensors")) {}

  std::unique_ptr<TrainableLm> model() const {
    auto model = models::make_model(
        json_.at("config").dump(), "config.json", cpu_device(), DType::kF32, DType::kF32);
    if (!model) throw std::runtime_error(model.error().message);
    for (Weight* w : (*model)->weights()) fill(*w);
    return std::move(*model);
  }

  std::vector<float> floats(const std::string& name) const {
    return file_.load(name, cpu_device())->to_f32();
  }
  std::vector<int32_t> ints(const std::string& name) const {
    return file_.load(name, cpu_device())->to_i32();
  }
  const nlohmann::json& json() const { return json_; }

 private:
  void fill(Weight& w) const {
    std::vector<float> values;
    for (const std::string& name : checkpoint_names(w)) {
      const auto& p = json_.at("params").at(name);
      const float offset = p.at("offset").get<float>(), scale = p.at("scale").get<float>();
      const uint64_t seed = json_.at("seed").get<uint64_t>() * 0x9E3779B97F4A7C15;
      const uint64_t start = name_hash(name.data(), name.size()) ^ seed;
      int64_t count = 1;
      for (const auto& d : p.at("shape")) count *= d.get<int64_t>();
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t h = mixed(start + static_cast<uint64_t>(i) * 0xD1B54A32D192ED03);
        const float u = static_cast<float>(h >> 40) * 0x1p-24f;
        values.push_back(offset + scale * (u - 0.5f));
      }
    }
    w.value.assign_f32(values);
    w.changed();
  }

  nlohmann::json json_;
  SafetensorsFile file_;
};

/// The largest difference relative to the largest expected magnitude.
double relative_error(const std::vector<float>& got, const std::vector<float>& expected) {
  if (got.size() != expected.size()) return INFINITY;
  double largest = 0, error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    const double e = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    error = std::isnan(e) ? INFINITY : std::max(error, e);
  }
  return largest == 0 ? error : error / largest;
}

models::TokenBatch batch_of(const Golden& golden) {
  const std::vector<int32_t> tokens = golden.ints("tokens");
  const auto n = static_cast<int32_t>(tokens.size());
  std::vector<int32_t> labels(tokens.begin() + 1, tokens.end());
  labels.push_back(-1);
  models::TokenBatch b;
  b.tokens = Tensor::from_i32(tokens, {n}, cpu_device());
  b.labels = Tensor::from_i32(labels, {n}, cpu_device());
  b.segments = ops::Segments::packed({&n, 1}, cpu_device());
  return b;
}

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
