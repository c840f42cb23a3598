#include "models/llama/model.h"

#include <cmath>

#include "autograd/recompute.h"
#include "autograd/tape.h"
#include "models/llama/size.h"
#include "ops/add/add.h"
#include "ops/add_bias/add_bias.h"
#include "ops/attention/attention.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/embedding/embedding.h"
#include "ops/linear/linear.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/swiglu/swiglu.h"

namespace ferry::models::llama {

Model::Model(Config config, Device& device, DType compute, std::optional<DType> storage)
    : TrainableLm(device, compute),
      config_(std::move(config)),
      weights_(make_weights(config_, storage, device)),
      positions_(config_.rope, config_.max_position_embeddings, device),
      softmax_scale_(static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dim)))) {}

Tensor Model::forward(const Tensor& tokens,
                      const ops::Segments& segments,
                      const ForwardOptions& options,
                      ForwardTrace* trace) {
  return hidden(tokens, {segments, options.cache, false, trace});
}

Losses Model::losses(const TokenBatch& batch, const LossOptions& options) {
  if (Tape* tape = Tape::current()) tape->keep_all(options.recompute == Recompute::kNone);
  Losses out;
  const Tensor h = hidden(
      batch.tokens, {batch.segments, nullptr, options.recompute == Recompute::kLayers, &out.trace});
  ops::CrossEntropy main =
      ops::cross_entropy(h, head(), batch.labels, options.scale, batch.weights);
  out.main = main.loss;
  out.token_losses = main.token_losses;
  return out;
}

/// After the last block and the final norm.
Tensor Model::hidden(const Tensor& tokens, const Pass& pass) {
  positions_.reach(pass.segments);
  begin_layer(0);
  Tensor h = ops::embedding(tokens, weights_.embed_tokens, compute_);
  for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
    begin_layer(l + 1);
    const LayerWeights& w = weights_.layers[static_cast<size_t>(l)];
    if (pass.recompute_layers)
      // By value: when the layer runs again, for its gradient, this pass has ended.
      h = recompute({h}, [this, &w, segments = pass.segments, l](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{layer(w, in[0], segments, nullptr, l)};
      })[0];
    else
      h = layer(w, h, pass.segments, pass.cache, l);
    if (pass.trace != nullptr && pass.trace->keep_layer_outputs)
      pass.trace->layer_outputs.push_back(h);
  }
  begin_layer(config_.num_hidden_layers + 1);
  if (pass.trace != nullptr && pass.trace->keep_before_norm) pass.trace->before_norm = h;
  return ops::rms_norm(h, weights_.norm, eps());
}

Tensor Model::layer(const LayerWeights& w,
                    const Tensor& h,
                    const ops::Segments& segments,
                    KvCache* cache,
                    int64_t index) const {
  const Tensor a =
      ops::add(h, attention(w, ops::rms_norm(h, w.input_layernorm, eps()), segments, cache, index));
  const Tensor x = ops::rms_norm(a, w.post_attention_layernorm, eps());
  return ops::add(a,
                  ops::linear(ops::swiglu(ops::linear(x, w.gate_proj), ops::linear(x, w.up_proj)),
                              w.down_proj));
}

/// x wᵀ, plus the bias before the one rounding, if there is one.
Tensor Model::projected(const Tensor& x, const Weight& w, const std::optional<Weight>& bias) const {
  if (!bias) return ops::linear(x, w);
  return ops::add_bias(ops::linear(x, w, {.out = DType::kF32}), *bias, x.dtype());
}

/// Grouped-query attention: each key head serves heads / key heads queries.
Tensor Model::attention(const LayerWeights& w,
                        const Tensor& x,
                        const ops::Segments& segments,
                        KvCache* cache,
                        int64_t index) const {
  const int64_t tokens = x.dim(0), heads = config_.num_attention_heads, dim = config_.head_dim,
                kv_heads = config_.num_key_value_heads, kv = kv_heads * dim;
  const auto turned = [&](const Tensor& t, int64_t count) {
    return ops::rope(t.reshape({tokens, count, dim}), positions_.rope(), segments, 0, false);
  };
  const Tensor q = turned(projected(x, w.q_proj, w.q_bias), heads);
  Tensor k = turned(projected(x, w.k_proj, w.k_bias), kv_heads);
  Tensor v = projected(x, w.v_proj, w.v_bias).reshape({tokens, kv_heads, dim});
  if (cache != nullptr) {
    const std::vector<Tensor>& rows =
        cache->append(index, {k.reshape({tokens, kv}), v.reshape({tokens, kv})});
    k = rows[0].reshape({rows[0].dim(0), kv_heads, dim});
    v = rows[1].reshape({rows[1].dim(0), kv_heads, dim});
  }
  const Tensor o = ops::attention(q, k, v, segments, softmax_scale_);
  return ops::linear(o.reshape({tokens, heads * dim}), w.o_proj);
}

std::vector<Weight*> Model::weights() {
  std::vector<Weight*> all;
  for_each_weight(weights_, [&](Weight& w) { all.push_back(&w); });
  return all;
}

std::string Model::config_json(std::string_view torch_dtype) const {
  return to_json(config_, torch_dtype);
}

int64_t Model::parameters_total() const {
  return static_cast<int64_t>(llama::parameters_total(config_));
}

int64_t Model::parameters_active() const {
  return static_cast<int64_t>(llama::parameters_active(config_));
}

double Model::flops_per_token(double context, MlaForm, bool) const {
  return llama::flops_per_token(config_, context);
}

double Model::activation_bytes_per_token(Recompute recompute) const {
  return llama::activation_bytes_per_token(config_, compute_, recompute);
}

}  // namespace ferry::models::llama
