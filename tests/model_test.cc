// What the model promises beyond Transformers: MTP and balance loss against float64, a row is a row
// (cached = uncached, chunked = whole, batched = alone), training = serving, recomputed = kept.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "autograd/tape.h"
#include "base/cpu_tier.h"
#include "base/random.h"
#include "device/cpu/cpu_device.h"
#include "float64_model.h"
#include "models/deepseek_v3/model.h"
#include "ops/add/add.h"

namespace ferry {
namespace {

using models::ForwardOptions;
using models::KvCache;
using models::MlaForm;
using models::deepseek_v3::Config;
using models::deepseek_v3::Model;

Config small_config() {
  Config c;
  c.vocab_size = 61;
  c.hidden_size = 24;
  c.num_hidden_layers = 2;
  c.first_k_dense_replace = 1;
  c.intermediate_size = 40;
  c.moe_intermediate_size = 12;
  c.n_routed_experts = 8;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 3;
  c.n_group = 4;
  c.topk_group = 2;
  c.routed_scaling_factor = 1.7;
  c.num_attention_heads = 3;
  c.q_lora_rank = 18;
  c.kv_lora_rank = 14;
  c.qk_nope_head_dim = 10;
  c.qk_rope_head_dim = 6;
  c.v_head_dim = 8;
  c.num_nextn_predict_layers = 1;
  c.max_position_embeddings = 256;
  c.yarn = models::deepseek_v3::Yarn{
      .factor = 4, .mscale = 0.8, .mscale_all_dim = 0.6, .original_max_position_embeddings = 32};
  return c;
}

std::unique_ptr<Model> random_model(const Config& c, DType compute) {
  auto model = std::make_unique<Model>(c, cpu_device(), compute, DType::kF32);
  for (Weight* w : model->weights()) {
    const Random random(5, RandomPurpose::kTest, name_hash(w->name.data(), w->name.size()));
    std::vector<float> v(static_cast<size_t>(w->value.count()));
    const bool matrix = w->value.rank() > 1;
    const double fan_in = static_cast<double>(w->value.dim(-1));
    for (size_t i = 0; i < v.size(); ++i)
      v[i] = static_cast<float>(matrix       ? random.normal(i) / std::sqrt(fan_in)
                                : w->trained ? 1 + 0.2 * random.normal(i)
                                             : 0.3 * random.uniform(i));
    w->value.assign_f32(v);
    w->changed();
  }
  return model;
}

std::vector<std::vector<int32_t>> documents() {
  std::vector<std::vector<int32_t>> d;
  const Random random(2, RandomPurpose::kTest, 0);
  uint64_t i = 0;
  for (const int length : {13, 1, 30, 7}) {
    d.emplace_back();
    for (int t = 0; t < length; ++t)
      d.back().push_back(static_cast<int32_t>(random.below(i++, 61)));
  }
  return d;
}

struct Packed {
  models::TokenBatch batch;
  int labels = 0, mtp_labels = 0;
};

Packed pack(const std::vector<std::vector<int32_t>>& docs) {
  std::vector<int32_t> tokens, labels, next, mtp, lengths;
  Packed p;
  for (const auto& d : docs) {
    lengths.push_back(static_cast<int32_t>(d.size()));
    for (size_t t = 0; t < d.size(); ++t) {
      tokens.push_back(d[t]);
      labels.push_back(t + 1 < d.size() ? d[t + 1] : -1);
      next.push_back(t + 1 < d.size() ? d[t + 1] : 0);
      mtp.push_back(t + 2 < d.size() ? d[t + 2] : -1);
      p.labels += labels.back() >= 0;
      p.mtp_labels += mtp.back() >= 0;
    }
  }
  const Shape shape = {static_cast<int64_t>(tokens.size())};
  p.batch.tokens = Tensor::from_i32(tokens, shape, cpu_device());
  p.batch.labels = Tensor::from_i32(labels, shape, cpu_device());
  p.batch.mtp_tokens = Tensor::from_i32(next, shape, cpu_device());
  p.batch.mtp_labels = Tensor::from_i32(mtp, shape, cpu_device());
  p.batch.segments = ops::Segments::packed(lengths, cpu_device());
  return p;
}

std::vector<char> bytes_of(const Tensor& t) {
  std::vector<char> b(t.bytes());
  t.copy_bytes_to(b.data());
  return b;
}

constexpr float kMtpWeight = 0.3f;
constexpr double kAlpha = 0.1;  // large, so that its gradient shows

std::map<std::string, Tensor> gradients(Model& model,
                                        const Packed& p,
                                        ForwardOptions options,
                                        models::Losses* losses) {
  for (Weight* w : model.weights()) w->value.set_needs_grad(w->trained);
  options.balance_alpha = kAlpha;
  Tape tape(&ops::accumulate);
  {
    const Tape::Recording recording(&tape);
    *losses = model.losses(p.batch,
                           options,
                           {.scale = 1.0f / static_cast<float>(p.labels),
                            .mtp_scale = kMtpWeight / static_cast<float>(p.mtp_labels)});
  }
  const std::vector<float> one = {1.0f};
  std::vector<std::pair<Tensor, Tensor>> seeds;
  const auto seed = [&](const Tensor& t) {
    seeds.emplace_back(t, Tensor::from_f32(one, {1}, cpu_device()));
  };
  seed(losses->main);
  if (losses->mtp.defined()) seed(losses->mtp);
  for (const Tensor& b : losses->balance) seed(b);
  std::map<const Storage*, std::string> names;
  for (Weight* w : model.weights()) names[w->value.storage().get()] = w->name;
  std::map<std::string, Tensor> grads;
  tape.backward(std::move(seeds), {.leaf_ready = [&](const Tensor& leaf, Tensor g) {
                  grads[names.at(leaf.storage().get())] = std::move(g);
                }});
  return grads;
}

TEST(Float64, LossesWithMtpAndBalanceAndTheirGradients) {
  const Config c = small_config();
  const auto model = random_model(c, DType::kF32);
  const auto docs = documents();
  const Packed p = pack(docs);
  Float64Model reference{c, {}};
  for (Weight* w : model->weights()) {
    const std::vector<float> v = w->value.to_f32();
    reference.weights[w->name] = Values(v.begin(), v.end());
  }
  const auto total = [&](const Float64Losses& l) {
    return l.main + static_cast<double>(kMtpWeight) * l.mtp + kAlpha * l.balance;
  };
  const Float64Losses expected = reference.losses(docs);
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    models::Losses losses;
    const auto grads = gradients(*model, p, {.mla_form = form}, &losses);
    EXPECT_NEAR(losses.main.to_f32()[0], expected.main, 1e-5 * expected.main);
    EXPECT_NEAR(losses.mtp.to_f32()[0], 0.3 * expected.mtp, 1e-5 * expected.mtp);
    double balance = 0;
    for (const Tensor& b : losses.balance) balance += static_cast<double>(b.to_f32()[0]);
    EXPECT_NEAR(balance, kAlpha * expected.balance, 1e-5);
    for (const Weight* w : model->weights()) {
      if (!w->trained) continue;
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

class EachType : public ::testing::TestWithParam<DType> {};

TEST_P(EachType, CachedIsUncachedAndBatchedIsAlone) {
  const auto model = random_model(small_config(), GetParam());
  const auto docs = documents();
  const Packed p = pack(docs);
  const std::vector<char> whole =
      bytes_of(model->logits(model->forward(p.batch.tokens, p.batch.segments, {}, nullptr)));
  const size_t row = whole.size() / static_cast<size_t>(p.batch.tokens.dim(0));

  // Documents share passes in uneven chunks, each in a slot of a cache; then each token by itself.
  for (const int64_t chunk : {5, 1}) {
    KvCache cache(3, 14 + 6, static_cast<int64_t>(docs.size()), 32, GetParam(), cpu_device());
    std::vector<std::vector<char>> got(docs.size());
    for (bool more = true; more;) {
      more = false;
      std::vector<KvCache::Part> parts;
      std::vector<int32_t> tokens;
      for (size_t d = docs.size(); d-- > 0;) {
        const int64_t begin = cache.length(static_cast<int64_t>(d));
        const int64_t n = std::min(chunk, static_cast<int64_t>(docs[d].size()) - begin);
        if (n <= 0) continue;
        parts.push_back({static_cast<int64_t>(d), n});
        tokens.insert(tokens.end(), docs[d].begin() + begin, docs[d].begin() + begin + n);
      }
      if (parts.empty()) break;
      more = true;
      const ops::Segments segments = cache.begin(parts);
      ForwardOptions options;
      options.cache = &cache;
      const Tensor ids =
          Tensor::from_i32(tokens, {static_cast<int64_t>(tokens.size())}, cpu_device());
      const std::vector<char> out =
          bytes_of(model->logits(model->forward(ids, segments, options, nullptr)));
      size_t at = 0;
      for (const KvCache::Part& part : parts) {
        auto& g = got[static_cast<size_t>(part.slot)];
        g.insert(g.end(),
                 out.begin() + static_cast<long>(at * row),
                 out.begin() + static_cast<long>((at + static_cast<size_t>(part.tokens)) * row));
        at += static_cast<size_t>(part.tokens);
      }
    }
    size_t from = 0;
    for (size_t d = 0; d < docs.size(); ++d) {
      ASSERT_EQ(got[d].size(), docs[d].size() * row);
      EXPECT_EQ(std::memcmp(got[d].data(), whole.data() + from, got[d].size()), 0)
          << "document " << d << ", chunks of " << chunk;
      from += got[d].size();
    }
  }
}

TEST_P(EachType, TrainingForwardIsServingForwardAndRecomputedIsKept) {
  const auto model = random_model(small_config(), GetParam());
  const Packed p = pack(documents());
  for (const MlaForm form : {MlaForm::kExpanded, MlaForm::kAbsorbed}) {
    const Tensor serving = model->losses(p.batch, {.mla_form = form}, {}).token_losses;
    models::Losses kept, again;
    const auto a = gradients(*model, p, {.mla_form = form}, &kept);
    const auto b = gradients(*model, p, {.mla_form = form, .recompute = true}, &again);
    EXPECT_EQ(bytes_of(serving), bytes_of(kept.token_losses));
    EXPECT_EQ(bytes_of(serving), bytes_of(again.token_losses));
    ASSERT_EQ(kept.trace.experts.size(), 2u);
    ASSERT_EQ(again.trace.experts.size(), 2u);
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, g] : a) EXPECT_EQ(bytes_of(g), bytes_of(b.at(name))) << name;
  }
}

TEST_P(EachType, ReplayedRoutingGivesTheSameBits) {
  const auto model = random_model(small_config(), GetParam());
  const Packed p = pack(documents());
  const models::Losses first = model->losses(p.batch, {}, {.scale = 1, .mtp_scale = 1});
  ForwardOptions options;
  options.given_experts = &first.trace.experts;
  const models::Losses replayed = model->losses(p.batch, options, {.scale = 1, .mtp_scale = 1});
  EXPECT_EQ(bytes_of(first.token_losses), bytes_of(replayed.token_losses));
  EXPECT_EQ(bytes_of(first.mtp), bytes_of(replayed.mtp));
}

TEST_P(EachType, TiersAndThreadsGiveTheSameGradients) {
  const auto model = random_model(small_config(), GetParam());
  const Packed p = pack(documents());
  const CpuTier tier = cpu_tier();
  models::Losses losses;
  const auto expected = gradients(*model, p, {.mla_form = MlaForm::kExpanded}, &losses);
  for (const CpuTier t : {CpuTier::kPlain, CpuTier::kAvx2, CpuTier::kAvx512}) {
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

INSTANTIATE_TEST_SUITE_P(Types,
                         EachType,
                         ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& type) { return std::string(to_string(type.param)); });

}  // namespace
}  // namespace ferry
