// What the model promises beyond Transformers: MTP and balance loss against float64, a row is a row
// (cached = uncached, chunked = whole, batched = alone), training = serving, recomputed = kept.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include "base/check.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "failing_device.h"
#include "float64_model.h"
#include "models/slot_cache.h"
#include "ops/dispatch.h"
#include "small_model.h"

namespace ferry {
namespace {

using models::MlaForm;
using models::deepseek_v3::Config;

TEST(Float64, LossesWithMtpAndBalanceAndTheirGradients) {
  const Config c = small_config();
  const auto model = random_model(c, DType::kF32, cpu_device());
  const auto docs = small_documents();
  const Packed p = pack(docs, cpu_device());
  Float64Model reference{c, {}};
  for (Weight* w : model->weights()) {
    const std::vector<float> v = w->value.to_f32();
    reference.weights[w->name] = Values(v.begin(), v.end());
  }
  const auto total = [&](const Float64Losses& l) {
    return l.main + static_cast<double>(kMtpWeight) * l.mtp + kBalanceAlpha * l.balance;
  };
  const Float64Losses expected = reference.losses(docs);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    models::Losses losses;
    const auto grads = gradients(*model, p, {.mla_form = form}, &losses);
    EXPECT_NEAR(losses.main.to_f32()[0], expected.main, 1e-5 * expected.main);
    EXPECT_NEAR(losses.mtp.to_f32()[0], 0.3 * expected.mtp, 1e-5 * expected.mtp);
    double balance = 0;
    for (const Tensor& b : losses.balance) balance += static_cast<double>(b.to_f32()[0]);
    EXPECT_NEAR(balance, kBalanceAlpha * expected.balance, 1e-5);
    for (const Weight* w : model->weights()) {
      if (!w->trained()) continue;
      ASSERT_TRUE(grads.contains(w->name)) << w->name;
      const std::vector<float> g = grads.at(w->name).to_f32();
      const Random random(3, RandomPurpose::kTest, name_hash(w->name.data(), w->name.size()));
      double along = 0, size = 0;
      Float64Model up = reference, down = reference;
      for (size_t i = 0; i < g.size(); ++i) {
        const double d = random.normal(i);
        up.weights[w->name][i] += 1e-6 * d;
        down.weights[w->name][i] -= 1e-6 * d;
        along += static_cast<double>(g[i]) * d;
        size += std::abs(static_cast<double>(g[i]) * d);
      }
      const double numeric = (total(up.losses(docs)) - total(down.losses(docs))) / 2e-6;
      EXPECT_NEAR(along, numeric, 1e-4 * size + 1e-7) << w->name;
    }
  }
}

class EachModel : public ::testing::TestWithParam<SmallModel> {
 protected:
  std::unique_ptr<models::TrainableLm> model_on(Device& device) const {
    return small_model(GetParam().architecture, GetParam().compute, device);
  }
};

TEST_P(EachModel, CachedIsUncachedAndBatchedIsAlone) {
  const auto model = model_on(cpu_device());
  const auto docs = small_documents();
  const Packed p = pack(docs, cpu_device());
  const std::vector<char> whole =
      bytes_of(all_logits(*model, model->forward(p.batch.tokens, p.batch.segments, {}, nullptr)));
  const size_t row = whole.size() / static_cast<size_t>(p.batch.tokens.dim(0));

  // Documents share passes in uneven chunks, each in a slot of a cache; then each token by itself.
  for (const int64_t chunk : {5, 1}) {
    const std::vector<std::vector<char>> got = cached_logits(*model, docs, chunk);
    size_t from = 0;
    for (size_t d = 0; d < docs.size(); ++d) {
      ASSERT_EQ(got[d].size(), docs[d].size() * row);
      EXPECT_EQ(std::memcmp(got[d].data(), whole.data() + from, got[d].size()), 0)
          << "document " << d << ", chunks of " << chunk;
      from += got[d].size();
    }
  }
}

/// What answering guesses with the MTP modules, piece by piece through a cache, is what training
/// computes its loss of.
TEST_P(EachModel, DraftsAreWhatTheModulesAreTrainedFor) {
  const auto model = model_on(cpu_device());
  const std::vector<int32_t> text = small_documents()[2];
  const Packed p = pack({text}, cpu_device());
  if (!model->has_mtp()) {
    models::SlotCache cache(*model, 1, 8);
    EXPECT_THROW(model->draft({}, {}, p.batch.segments, *cache.cache()), Bug);
    return;
  }
  const models::Losses losses =
      model->losses(p.batch, {.scale = 1, .mtp_scale = 1.0f / static_cast<float>(p.mtp_labels)});
  const auto length = std::ssize(text);
  std::vector<char> whole;
  for (const int64_t chunk : {length, int64_t{7}, int64_t{1}}) {
    const std::unique_ptr<models::KvCache> cache = model->make_cache(1, true);
    const std::vector<int32_t> pages = {0};
    std::vector<char> got;
    double sum = 0;
    for (int64_t begin = 0; begin < length; begin += chunk) {
      const int64_t end = std::min(begin + chunk, length);
      const auto rows = [&](const Tensor& t) { return t.slice(0, begin, end); };
      const models::KvCache::Part part{pages, begin, end - begin};
      models::ForwardTrace trace;
      trace.keep_before_norm = true;
      const ops::Segments segments = cache->begin({&part, 1});
      model->forward(rows(p.batch.tokens), segments, {.cache = cache.get()}, &trace);
      const Tensor hidden = model->draft(
          trace.before_norm, rows(p.batch.mtp_tokens), cache->begin({&part, 1}), *cache);
      for (const float loss : model->token_losses(hidden, rows(p.batch.mtp_labels)).to_f32())
        sum += static_cast<double>(loss);
      const std::vector<char> bytes = bytes_of(hidden);
      got.insert(got.end(), bytes.begin(), bytes.end());
    }
    // Training may take the expanded form, another numerics; here it took the absorbed one.
    EXPECT_NEAR(sum / p.mtp_labels, static_cast<double>(losses.mtp.to_f32()[0]), 1e-5);
    if (chunk == length) whole = got;
    EXPECT_EQ(got, whole) << "chunks of " << chunk;
  }
}

TEST_P(EachModel, LogitsOfChosenRowsAreThoseOfAll) {
  const auto model = model_on(cpu_device());
  const Packed p = pack(small_documents(), cpu_device());
  const Tensor hidden = model->forward(p.batch.tokens, p.batch.segments, {}, nullptr);
  const std::vector<char> all = bytes_of(all_logits(*model, hidden));
  const size_t row = all.size() / static_cast<size_t>(hidden.dim(0));
  for (const std::vector<int64_t>& rows :
       {std::vector<int64_t>{7}, {3, 4, 5}, {12, 13, 43, 50}, {50, 0, 1, 1}}) {
    const std::vector<char> got = bytes_of(model->logits(hidden, rows));
    ASSERT_EQ(got.size(), rows.size() * row);
    for (size_t i = 0; i < rows.size(); ++i)
      EXPECT_EQ(
          std::memcmp(got.data() + i * row, all.data() + static_cast<size_t>(rows[i]) * row, row),
          0)
          << "row " << rows[i];
  }
}

TEST_P(EachModel, APassThatFailsLeavesTheCacheAsItWas) {
  const auto model = model_on(cpu_device());
  const std::vector<int32_t> tokens = small_documents()[2];
  const auto all = static_cast<int64_t>(tokens.size());
  const auto pass = [&](models::SlotCache& cache, int64_t begin, int64_t end) {
    const models::SlotCache::Part part{0, end - begin};
    const ops::Segments segments = cache.begin({&part, 1});
    const Tensor ids = Tensor::from_i32(
        std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        {end - begin},
        cpu_device());
    const Tensor hidden = model->forward(ids, segments, {.cache = cache.cache()}, nullptr);
    const std::vector<char> logits = bytes_of(all_logits(*model, hidden));
    cache.commit();
    return logits;
  };
  models::SlotCache whole(*model, 1, all);
  pass(whole, 0, 10);
  const std::vector<char> expected = pass(whole, 10, all);
  for (const int launch : {0, 9, 30}) {  // at once, in the first block, in the second
    models::SlotCache cache(*model, 1, all);
    pass(cache, 0, 10);
    FailingDevice failing(launch);
    {
      const ops::Observing observing(failing);
      EXPECT_THROW(pass(cache, 10, all), DeviceError) << launch;
    }
    EXPECT_EQ(cache.length(0), 10);
    EXPECT_EQ(cache.remaining(0), all - 10);
    EXPECT_THROW(cache.begin(std::vector<models::SlotCache::Part>{{0, 1}, {0, all}}), Bug);
    EXPECT_EQ(cache.length(0), 10);
    EXPECT_EQ(pass(cache, 10, all), expected) << "tried again after launch " << launch;
  }
}

TEST(Weights, SayTheirLayerAndRole) {
  const auto model = random_model(small_config(), DType::kF32, cpu_device());
  std::map<std::string, const Weight*> by_name;
  for (const Weight* w : model->weights()) by_name[w->name] = w;
  const auto expect = [&](const char* name, int layer, WeightRole role) {
    ASSERT_TRUE(by_name.contains(name)) << name;
    EXPECT_EQ(by_name[name]->layer, layer) << name;
    EXPECT_EQ(by_name[name]->role, role) << name;
  };
  expect("model.embed_tokens.weight", 0, WeightRole::kEmbedding);
  expect("model.layers.0.self_attn.o_proj.weight", 1, WeightRole::kProjection);
  expect("model.layers.1.mlp.gate.weight", 2, WeightRole::kRouter);
  expect("model.layers.1.mlp.experts.*.up_proj.weight", 2, WeightRole::kExperts);
  expect("model.layers.1.mlp.gate.e_score_correction_bias", 2, WeightRole::kSelectionBias);
  expect("model.norm.weight", 3, WeightRole::kVector);
  expect("lm_head.weight", 3, WeightRole::kHead);
  expect("model.layers.2.eh_proj.weight", 4, WeightRole::kFine);

  const auto qwen2 = small_model("qwen2", DType::kF32, cpu_device());
  by_name.clear();
  for (const Weight* w : qwen2->weights()) by_name[w->name] = w;
  expect("model.layers.1.self_attn.k_proj.bias", 2, WeightRole::kBias);
  expect("model.layers.1.mlp.down_proj.weight", 2, WeightRole::kProjection);
  expect("model.norm.weight", 3, WeightRole::kVector);
  EXPECT_FALSE(by_name.contains("lm_head.weight"));  // the embedding is
}

TEST_P(EachModel, TrainingForwardIsServingForwardAndRecomputedIsKept) {
  const auto model = model_on(cpu_device());
  const Packed p = pack(small_documents(), cpu_device());
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    const Tensor serving = model->losses(p.batch, {.mla_form = form}).token_losses;
    models::Losses kept;
    const auto a =
        gradients(*model, p, {.mla_form = form, .recompute = models::Recompute::kNone}, &kept);
    EXPECT_EQ(bytes_of(serving), bytes_of(kept.token_losses));
    const size_t routers = model->experts() > 0 ? 2 : 0;
    ASSERT_EQ(kept.trace.experts.size(), routers);
    for (const auto recompute : {models::Recompute::kCheap, models::Recompute::kLayers}) {
      models::Losses again;
      const auto b = gradients(*model, p, {.mla_form = form, .recompute = recompute}, &again);
      EXPECT_EQ(bytes_of(serving), bytes_of(again.token_losses));
      ASSERT_EQ(again.trace.experts.size(), routers);
      ASSERT_EQ(a.size(), b.size());
      for (const auto& [name, g] : a) EXPECT_EQ(bytes_of(g), bytes_of(b.at(name))) << name;
    }
  }
}

TEST_P(EachModel, TrainingTakesTheMemoryThatIsEstimated) {
  const auto model = model_on(cpu_device());
  const Packed p = pack(std::vector(32, std::vector<int32_t>(256, 7)), cpu_device());
  const auto tokens = static_cast<double>(p.batch.segments.tokens());
  double gradient_bytes = 0;
  for (const Weight* w : model->weights()) gradient_bytes += static_cast<double>(w->value.bytes());
  for (const auto recompute :
       {models::Recompute::kNone, models::Recompute::kCheap, models::Recompute::kLayers}) {
    const size_t before = cpu_device().memory_use().live_bytes;
    cpu_device().reset_peak();
    models::Losses losses;
    gradients(*model, p, {.recompute = recompute}, &losses);
    const double taken =
        static_cast<double>(cpu_device().memory_use().peak_bytes - before) - gradient_bytes;
    constexpr double kWorkspaces = 8e6;  // of the products and of the logits
    const double expected = model->activation_bytes_per_token(recompute) * tokens;
    EXPECT_LT(taken, expected + kWorkspaces) << static_cast<int>(recompute);
    EXPECT_GT(taken, expected / 2) << static_cast<int>(recompute);
  }
}

class EachType : public ::testing::TestWithParam<DType> {};

TEST_P(EachType, ReplayedRoutingGivesTheSameBits) {
  const auto model = random_model(small_config(), GetParam(), cpu_device());
  const Packed p = pack(small_documents(), cpu_device());
  const models::Losses first = model->losses(p.batch, {.scale = 1, .mtp_scale = 1});
  const models::Losses replayed =
      model->losses(p.batch, {.scale = 1, .mtp_scale = 1, .given_experts = first.trace.experts});
  EXPECT_EQ(bytes_of(first.token_losses), bytes_of(replayed.token_losses));
  EXPECT_EQ(bytes_of(first.mtp), bytes_of(replayed.mtp));
}

TEST_P(EachModel, TiersAndThreadsGiveTheSameGradients) {
  const auto model = model_on(cpu_device());
  const Packed p = pack(small_documents(), cpu_device());
  const CpuTier tier = cpu_tier();
  models::Losses losses;
  const auto expected = gradients(*model, p, {.mla_form = MlaForm::kExpanded}, &losses);
  for (const CpuTier t : kCpuTiers) {
    if (!cpu_has(t)) continue;
    set_cpu_tier(t);
    for (const int threads : {1, 3}) {
      set_cpu_threads(threads);
      const auto got = gradients(*model, p, {.mla_form = MlaForm::kExpanded}, &losses);
      for (const auto& [name, g] : expected)
        EXPECT_EQ(bytes_of(g), bytes_of(got.at(name)))
            << name << ' ' << to_string(t) << ' ' << threads;
    }
  }
  set_cpu_tier(tier);
  set_cpu_threads(0);
}

INSTANTIATE_TEST_SUITE_P(DeepSeek,
                         EachType,
                         ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& type) { return std::string(to_string(type.param)); });
INSTANTIATE_TEST_SUITE_P(Small,
                         EachModel,
                         ::testing::ValuesIn(small_models()),
                         [](const auto& model) { return name_of(model.param); });

}  // namespace
}  // namespace ferry
