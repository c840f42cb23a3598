#include "models/deepseek_v3/model.h"

#include "autograd/recompute.h"
#include "autograd/tape.h"
#include "base/check.h"
#include "models/deepseek_v3/size.h"
#include "ops/add/add.h"
#include "ops/attention/attention.h"
#include "ops/balance_loss/balance_loss.h"
#include "ops/concat/concat.h"
#include "ops/cross_entropy/cross_entropy.h"
#include "ops/embedding/embedding.h"
#include "ops/grouped_linear/grouped_linear.h"
#include "ops/head_linear/head_linear.h"
#include "ops/linear/linear.h"
#include "ops/mla_expand/mla_expand.h"
#include "ops/moe_permute/moe_permute.h"
#include "ops/rms_norm/rms_norm.h"
#include "ops/swiglu/swiglu.h"

namespace ferry::models::deepseek_v3 {
namespace {

// Transformers and DeepSeek's own code fix the epsilon of the two latent norms, whatever
// rms_norm_eps.
constexpr float kLatentNormEps = 1e-6f;

}  // namespace

Model::Model(Config config, Device& device, DType compute, std::optional<DType> storage)
    : TrainableLm(device, compute),
      config_(std::move(config)),
      weights_(make_weights(config_, storage, device)),
      positions_(config_.rope, config_.max_position_embeddings, device),
      router_(config_.n_routed_experts > 0 ? router_config(config_) : ops::RouterConfig{}),
      softmax_scale_(ops::mla_softmax_scale(config_.qk_head_dim(), config_.rope)) {}

Tensor Model::forward(const Tensor& tokens,
                      const ops::Segments& segments,
                      const ForwardOptions& options,
                      ForwardTrace* trace) {
  const PassOptions pass_options{.forward = options};
  Pass pass{segments, pass_options, trace};
  const Tensor h = hidden_before_norm(tokens, pass);
  if (trace != nullptr && trace->keep_before_norm) trace->before_norm = h;
  return ops::rms_norm(h, weights_.norm, eps());
}

Tensor Model::draft(const Tensor& before_norm,
                    const Tensor& next,
                    const ops::Segments& segments,
                    KvCache& cache) {
  check(weights_.mtp.has_value(), "deepseek_v3: a draft without MTP modules");
  PassOptions pass_options;
  pass_options.forward.cache = &cache;
  Pass pass{segments, pass_options, nullptr};
  pass.layer = config_.num_hidden_layers;
  return run_mtp(before_norm, next, pass);
}

/// V3 section 2.2, depth 1: the hidden state of token i and the embedding of token i + 1 predict
/// token i + 2. The checkpoint's eh_proj takes the embedding first.
Tensor Model::run_mtp(const Tensor& before_norm, const Tensor& next, Pass& pass) {
  const MtpWeights& m = *weights_.mtp;
  positions_.reach(pass.segments);
  begin_layer(config_.num_hidden_layers + 2);
  const Tensor embedded =
      ops::rms_norm(ops::embedding(next, weights_.embed_tokens, compute_), m.enorm, eps());
  const Tensor previous = ops::rms_norm(before_norm, m.hnorm, eps());
  const Tensor x = ops::linear(ops::concat(embedded, previous), m.eh_proj);
  return ops::rms_norm(run_layer(m.layer, x, pass), m.shared_head_norm, eps());
}

Losses Model::losses(const TokenBatch& batch, const LossOptions& options) {
  if (Tape* tape = Tape::current()) tape->keep_all(options.recompute == Recompute::kNone);
  Losses out;
  const PassOptions pass_options{
      .forward = {.mla_form = options.mla_form, .given_experts = options.given_experts},
      .recompute_layers = options.recompute == Recompute::kLayers,
      .balance_alpha = static_cast<float>(options.balance_alpha)};
  Pass pass{batch.segments, pass_options, &out.trace};
  const Tensor h = hidden_before_norm(batch.tokens, pass);
  ops::CrossEntropy main = ops::cross_entropy(
      ops::rms_norm(h, weights_.norm, eps()), head(), batch.labels, options.scale, batch.weights);
  out.main = main.loss;
  out.token_losses = main.token_losses;
  if (options.mtp_scale > 0 && weights_.mtp) {
    const Tensor y = run_mtp(h, batch.mtp_tokens, pass);
    out.mtp = ops::cross_entropy(y, head(), batch.mtp_labels, options.mtp_scale).loss;
  }
  out.balance = std::move(pass.balance);
  return out;
}

Tensor Model::hidden_before_norm(const Tensor& tokens, Pass& pass) {
  const ForwardOptions& options = pass.options.forward;
  check(options.cache == nullptr || options.mla_form == MlaForm::kAbsorbed,
        "deepseek_v3: a cache needs the absorbed form");
  positions_.reach(pass.segments);
  begin_layer(0);
  Tensor h = ops::embedding(tokens, weights_.embed_tokens, compute_);
  for (const LayerWeights& w : weights_.layers) {
    begin_layer(pass.layer + 1);
    h = run_layer(w, h, pass);
  }
  begin_layer(config_.num_hidden_layers + 1);
  return h;
}

Tensor Model::run_layer(const LayerWeights& w, const Tensor& h, Pass& pass) {
  std::vector<Tensor> out;
  if (pass.options.recompute_layers) {
    // By value: when the layer runs again, for its gradient, this pass has ended. Its trace is
    // complete.
    const ops::Segments segments = pass.segments;
    const PassOptions options = pass.options;
    const int64_t index = pass.layer, moe_index = pass.moe_layer;
    ForwardTrace* const trace = pass.trace;
    out = recompute(
        {h}, [this, &w, segments, options, index, moe_index, trace](const std::vector<Tensor>& in) {
          const Pass again{segments, options, nullptr, {}, index, moe_index};
          return layer(w, in[0], again, recomputing() ? nullptr : trace);
        });
  } else {
    out = layer(w, h, pass, pass.trace);
  }
  ++pass.layer;
  if (w.moe) ++pass.moe_layer;
  if (out.size() > 1) pass.balance.push_back(out[1]);
  if (pass.trace != nullptr && pass.trace->keep_layer_outputs)
    pass.trace->layer_outputs.push_back(out[0]);
  return out[0];
}

/// One transformer block. Returns its output and, if asked for, the balance loss of its router.
std::vector<Tensor> Model::layer(const LayerWeights& w,
                                 const Tensor& h,
                                 const Pass& pass,
                                 ForwardTrace* trace) const {
  const Tensor a =
      ops::add(h, attention(w.self_attn, ops::rms_norm(h, w.input_layernorm, eps()), pass));
  const Tensor x = ops::rms_norm(a, w.post_attention_layernorm, eps());
  if (w.mlp) return {ops::add(a, mlp(*w.mlp, x))};
  Tensor balance;
  const Tensor y = ops::add(a, moe(*w.moe, x, pass, trace, &balance));
  if (!balance.defined()) return {y};
  return {y, balance};
}

/// Multi-head latent attention, V2 section 2.1.
Tensor Model::attention(const AttentionWeights& w, const Tensor& x, const Pass& pass) const {
  const int64_t tokens = x.dim(0), latent = config_.kv_lora_rank;
  const Tensor q = queries(w, x, pass);
  const Tensor ckv = ops::linear(x, w.kv_a_proj_with_mqa);
  const Tensor c = ops::rms_norm(ckv.slice(1, 0, latent), w.kv_a_layernorm, kLatentNormEps);
  const Tensor k_pe = ops::rope(ckv.slice(1, latent, ckv.dim(1)),
                                positions_.rope(),
                                pass.segments,
                                0,
                                config_.rope_interleave);
  const Tensor o = pass.options.forward.mla_form == MlaForm::kExpanded
                       ? attend_expanded(w, q, c, k_pe, pass)
                       : attend_absorbed(w, q, c, k_pe, pass);
  return ops::linear(o.reshape({tokens, config_.num_attention_heads * config_.v_head_dim}),
                     w.o_proj);
}

/// [tokens, heads, nope + rope], the last part rotated.
Tensor Model::queries(const AttentionWeights& w, const Tensor& x, const Pass& pass) const {
  const Tensor q =
      w.q_proj ? ops::linear(x, *w.q_proj, {.keep = false})
               : ops::linear(
                     ops::rms_norm(ops::linear(x, *w.q_a_proj), *w.q_a_layernorm, kLatentNormEps),
                     *w.q_b_proj,
                     {.keep = false});
  return ops::rope(q.reshape({x.dim(0), config_.num_attention_heads, config_.qk_head_dim()}),
                   positions_.rope(),
                   pass.segments,
                   config_.qk_nope_head_dim,
                   config_.rope_interleave);
}

/// Keys and values of every head are computed from the latent.
Tensor Model::attend_expanded(const AttentionWeights& w,
                              const Tensor& q,
                              const Tensor& c,
                              const Tensor& k_pe,
                              const Pass& pass) const {
  const int64_t nope = config_.qk_nope_head_dim;
  const Tensor kv =
      ops::linear(c, w.kv_b_proj, {.keep = false})
          .reshape({c.dim(0), config_.num_attention_heads, nope + config_.v_head_dim});
  const ops::Expanded e = ops::mla_expand(kv, k_pe, nope);
  return ops::attention(q, e.k, e.v, pass.segments, softmax_scale_);
}

/// Queries are taken to the latent space instead, where all heads share one key: what a cache
/// holds.
Tensor Model::attend_absorbed(const AttentionWeights& w,
                              const Tensor& q,
                              const Tensor& c,
                              const Tensor& k_pe,
                              const Pass& pass) const {
  const int64_t nope = config_.qk_nope_head_dim, v = config_.v_head_dim,
                latent = config_.kv_lora_rank;
  const Tensor q_latent =
      ops::head_linear(q.slice(2, 0, nope),
                       w.kv_b_proj,
                       {.rows_per_head = nope + v, .begin = 0, .rows = nope, .transpose = false});
  const Tensor q_absorbed = ops::concat(q_latent, q.slice(2, nope, q.dim(2)));
  const auto one_head = [](const Tensor& t) { return t.reshape({t.dim(0), 1, t.dim(1)}); };
  Tensor z;
  if (KvCache* const cache = pass.options.forward.cache) {
    const std::vector<Tensor>& rows = cache->append(pass.layer, {c, k_pe});
    const Tensor keys = one_head(rows[0]);
    z = ops::attention(q_absorbed, keys, keys, pass.segments, softmax_scale_, one_head(rows[1]));
  } else {
    const Tensor keys = one_head(ops::concat(c, k_pe));
    z = ops::attention(q_absorbed, keys, keys.slice(2, 0, latent), pass.segments, softmax_scale_);
  }
  return ops::head_linear(
      z, w.kv_b_proj, {.rows_per_head = nope + v, .begin = nope, .rows = v, .transpose = true});
}

Tensor Model::mlp(const MlpWeights& w, const Tensor& x) const {
  return ops::linear(ops::swiglu(ops::linear(x, w.gate_proj), ops::linear(x, w.up_proj)),
                     w.down_proj);
}

/// Mixture of experts, V3 section 2.1.2: shared experts see every token, routed ones their own.
Tensor Model::moe(const MoeWeights& w,
                  const Tensor& x,
                  const Pass& pass,
                  ForwardTrace* trace,
                  Tensor* balance) const {
  const Tensor bias = w.e_score_correction_bias ? w.e_score_correction_bias->value : Tensor{};
  const std::vector<Tensor>& replayed = pass.options.forward.given_experts;
  const Tensor given =
      replayed.empty() ? Tensor{} : replayed.at(static_cast<size_t>(pass.moe_layer));
  const ops::Routing routing =
      ops::route(ops::linear(x, w.gate, {.out = DType::kF32}), bias, router_, given);
  if (pass.options.balance_alpha > 0)
    *balance = ops::balance_loss(routing, pass.segments, pass.options.balance_alpha);
  if (trace != nullptr) trace->experts.push_back(routing.experts);
  const ops::ExpertPlan plan = ops::plan_experts(routing.experts, router_.experts);
  const Tensor rows = ops::permute(x, plan);
  const Tensor inner = ops::swiglu(ops::grouped_linear(rows, w.experts.gate_proj, plan.offsets),
                                   ops::grouped_linear(rows, w.experts.up_proj, plan.offsets));
  const Tensor routed = ops::combine(
      ops::grouped_linear(inner, w.experts.down_proj, plan.offsets), routing.weights, plan);
  return w.shared_experts ? ops::add(routed, mlp(*w.shared_experts, x)) : routed;
}

std::vector<Weight*> Model::weights() {
  std::vector<Weight*> all;
  for_each_weight(weights_, [&](Weight& w) { all.push_back(&w); });
  return all;
}

/// DeepSeek's checkpoints repeat the embedding and the head in the MTP layer.
std::vector<std::pair<std::string, const Weight*>> Model::weight_aliases() const {
  if (!weights_.mtp) return {};
  const std::string layer = "model.layers." + std::to_string(config_.num_hidden_layers);
  return {{layer + ".embed_tokens.weight", &weights_.embed_tokens},
          {layer + ".shared_head.head.weight", &head()}};
}

std::vector<Weight*> Model::selection_biases() {
  std::vector<Weight*> biases;
  for (Weight* w : weights())
    if (!w->trained()) biases.push_back(w);
  return biases;
}

RoutedLayers Model::routed_layers() const {
  RoutedLayers routed{.top_k = config_.num_experts_per_tok};
  for (const LayerWeights& w : weights_.layers) routed.layers += w.moe.has_value();
  routed.mtp_layers = weights_.mtp && weights_.mtp->layer.moe ? 1 : 0;
  return routed;
}

int64_t Model::parameters_total() const {
  return static_cast<int64_t>(deepseek_v3::parameters_total(config_));
}
int64_t Model::parameters_active() const {
  return static_cast<int64_t>(deepseek_v3::parameters_active(config_));
}
double Model::flops_per_token(double context, MlaForm form, bool mtp) const {
  return deepseek_v3::flops_per_token(config_, context, form, mtp);
}
double Model::activation_bytes_per_token(Recompute recompute) const {
  return deepseek_v3::activation_bytes_per_token(config_, compute_, recompute);
}

std::string Model::config_json(std::string_view torch_dtype) const {
  return to_json(config_, torch_dtype);
}

}  // namespace ferry::models::deepseek_v3
