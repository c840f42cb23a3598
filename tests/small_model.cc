// See small_model.h.
#include "small_model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/tape.h"
#include "base/random.h"
#include "models/llama/model.h"
#include "models/slot_cache.h"
#include "ops/add/add.h"

namespace ferry {

using models::ForwardOptions;
using models::SlotCache;
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
  c.rope = {.dim = 6,
            .scaling = ops::RopeScaling::kYarn,
            .factor = 4,
            .original_max_position = 32,
            .mscale = 0.8,
            .mscale_all_dim = 0.6};
  return c;
}

namespace {

/// Two queries for each key head, long-context scaling, a head of its own or the embedding's.
models::llama::Config small_llama(bool qwen2) {
  models::llama::Config c;
  c.qwen2 = qwen2;
  c.vocab_size = 61;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 10;
  c.rope = {.dim = 10,
            .theta = 1000,
            .scaling = qwen2 ? ops::RopeScaling::kYarn : ops::RopeScaling::kLlama3,
            .factor = 4,
            .original_max_position = 32};
  c.max_position_embeddings = 256;
  c.tie_word_embeddings = qwen2;
  return c;
}

void draw_weights(models::TrainableLm& model) {
  for (Weight* w : model.weights()) {
    const Random random(5, RandomPurpose::kTest, name_hash(w->name.data(), w->name.size()));
    std::vector<float> v(static_cast<size_t>(w->value.count()));
    const bool matrix = w->value.rank() > 1;
    const double fan_in = static_cast<double>(w->value.dim(-1));
    for (size_t i = 0; i < v.size(); ++i)
      v[i] = static_cast<float>(matrix ? random.normal(i) / std::sqrt(fan_in)
                                : w->role == WeightRole::kVector ? 1 + 0.2 * random.normal(i)
                                                                 : 0.3 * random.uniform(i));
    w->value.assign_f32(v);
    w->changed();
  }
}

}  // namespace

std::unique_ptr<Model> random_model(const Config& c, DType compute, Device& device) {
  auto model = std::make_unique<Model>(c, device, compute, DType::kF32);
  draw_weights(*model);
  return model;
}

std::unique_ptr<models::TrainableLm> small_model(const std::string& architecture,
                                                 DType compute,
                                                 Device& device) {
  if (architecture == "deepseek_v3") return random_model(small_config(), compute, device);
  auto model = std::make_unique<models::llama::Model>(
      small_llama(architecture == "qwen2"), device, compute, DType::kF32);
  draw_weights(*model);
  return model;
}

std::vector<SmallModel> small_models() {
  std::vector<SmallModel> all;
  for (const char* architecture : {"deepseek_v3", "llama", "qwen2"})
    for (const DType compute : {DType::kF32, DType::kBF16}) all.push_back({architecture, compute});
  return all;
}

std::string name_of(const SmallModel& m) {
  return fmt::format("{}_{}", m.architecture, to_string(m.compute));
}

std::vector<std::vector<int32_t>> small_documents() {
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

Packed pack(const std::vector<std::vector<int32_t>>& docs, Device& device) {
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
  p.batch.tokens = Tensor::from_i32(tokens, shape, device);
  p.batch.labels = Tensor::from_i32(labels, shape, device);
  p.batch.mtp_tokens = Tensor::from_i32(next, shape, device);
  p.batch.mtp_labels = Tensor::from_i32(mtp, shape, device);
  p.batch.segments = ops::Segments::packed(lengths, device);
  return p;
}

std::vector<char> bytes_of(const Tensor& t) {
  std::vector<char> b(t.bytes());
  t.copy_bytes_to(b.data());
  return b;
}

Tensor all_logits(models::CausalLm& model, const Tensor& hidden) {
  std::vector<int64_t> rows(static_cast<size_t>(hidden.dim(0)));
  std::iota(rows.begin(), rows.end(), 0);
  return model.logits(hidden, rows);
}

std::map<std::string, Tensor> gradients(models::TrainableLm& model,
                                        const Packed& p,
                                        models::LossOptions options,
                                        models::Losses* losses) {
  for (Weight* w : model.weights()) w->value.set_needs_grad(w->trained());
  options.balance_alpha = kBalanceAlpha;
  options.scale = 1.0f / static_cast<float>(p.labels);
  if (model.has_mtp()) options.mtp_scale = kMtpWeight / static_cast<float>(p.mtp_labels);
  Tape tape(&ops::accumulate);
  {
    const Tape::Recording recording(&tape);
    *losses = model.losses(p.batch, options);
  }
  const std::vector<float> one = {1.0f};
  std::vector<std::pair<Tensor, Tensor>> seeds;
  const auto seed = [&](const Tensor& t) {
    seeds.emplace_back(t, Tensor::from_f32(one, {1}, model.device()));
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

std::vector<std::vector<char>> cached_logits(models::CausalLm& model,
                                             const std::vector<std::vector<int32_t>>& docs,
                                             int64_t chunk) {
  const auto row = static_cast<size_t>(model.vocab_size()) * sizeof(float);
  SlotCache cache(model, static_cast<int64_t>(docs.size()), 32);
  std::vector<std::vector<char>> got(docs.size());
  for (bool more = true; more;) {
    more = false;
    std::vector<SlotCache::Part> parts;
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
    options.cache = cache.cache();
    const Tensor ids =
        Tensor::from_i32(tokens, {static_cast<int64_t>(tokens.size())}, model.device());
    const std::vector<char> out =
        bytes_of(all_logits(model, model.forward(ids, segments, options, nullptr)));
    cache.commit();
    size_t at = 0;
    for (const SlotCache::Part& part : parts) {
      auto& g = got[static_cast<size_t>(part.slot)];
      g.insert(g.end(),
               out.begin() + static_cast<long>(at * row),
               out.begin() + static_cast<long>((at + static_cast<size_t>(part.tokens)) * row));
      at += static_cast<size_t>(part.tokens);
    }
  }
  return got;
}

}  // namespace ferry
