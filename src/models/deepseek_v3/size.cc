#include "models/deepseek_v3/size.h"

#include <algorithm>

namespace ferry::models::deepseek_v3 {
namespace {

double number(int64_t n) { return static_cast<double>(n); }

/// Parameters; of attention and gate the matrices alone.
struct LayerSize {
  double attention = 0;
  double dense = 0;   // of a dense MLP
  double expert = 0;  // of one routed expert
  double shared = 0;
  double gate = 0;
  double vectors = 0;  // norms
};

LayerSize layer_size(const Config& c) {
  LayerSize s;
  const double hidden = number(c.hidden_size), heads = number(c.num_attention_heads);
  const double q = heads * number(c.qk_head_dim()), q_rank = number(c.q_lora_rank);
  s.attention = c.q_lora_rank > 0 ? q_rank * (hidden + q) : hidden * q;
  s.attention += hidden * number(c.kv_lora_rank + c.qk_rope_head_dim);
  s.attention += number(c.kv_lora_rank) * heads * number(c.qk_nope_head_dim + c.v_head_dim);
  s.attention += heads * number(c.v_head_dim) * hidden;
  s.dense = 3 * hidden * number(c.intermediate_size);
  s.expert = 3 * hidden * number(c.moe_intermediate_size);
  s.shared = number(c.n_shared_experts) * s.expert;
  s.gate = hidden * number(c.n_routed_experts);
  s.vectors = 2 * hidden + q_rank + number(c.kv_lora_rank);
  return s;
}

/// Attention's parameters and those of the MLP that one token uses, summed over the main layers
/// and, if wanted, MTP; with the head.
double active_matrices(const Config& c, bool mtp) {
  const LayerSize s = layer_size(c);
  const double moe = s.attention + s.gate + s.shared + number(c.num_experts_per_tok) * s.expert;
  const double head = number(c.vocab_size) * number(c.hidden_size);
  double sum = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    sum += c.is_moe(l) ? moe : s.attention + s.dense;
  sum += head;
  if (mtp && c.num_nextn_predict_layers > 0)
    sum += (c.n_routed_experts > 0 ? moe : s.attention + s.dense) +
           2 * number(c.hidden_size) * number(c.hidden_size) + head;
  return sum;
}

}  // namespace

double parameters_total(const Config& c) {
  const LayerSize s = layer_size(c);
  const double hidden = number(c.hidden_size), embedding = number(c.vocab_size) * hidden;
  const double biases = c.topk_method == TopK::kNoAuxTc ? number(c.n_routed_experts) : 0;
  const double dense = s.attention + s.vectors + s.dense;
  const double moe =
      s.attention + s.vectors + s.gate + biases + s.shared + number(c.n_routed_experts) * s.expert;
  double sum = embedding * (c.tie_word_embeddings ? 1 : 2) + hidden;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) sum += c.is_moe(l) ? moe : dense;
  if (c.num_nextn_predict_layers > 0)
    sum += 2 * hidden * hidden + 3 * hidden + (c.n_routed_experts > 0 ? moe : dense);
  return sum;
}

double parameters_active(const Config& c) { return active_matrices(c, true); }

double flops_per_token(const Config& c, double context, MlaForm form, bool mtp) {
  const double layers =
      static_cast<double>(c.num_hidden_layers + (mtp ? c.num_nextn_predict_layers : 0));
  const double heads = static_cast<double>(c.num_attention_heads);
  double flops = 2.0 * active_matrices(c, mtp);
  double key = static_cast<double>(c.qk_head_dim()), value = static_cast<double>(c.v_head_dim);
  if (form == MlaForm::kAbsorbed) {
    // q and the output pass through kv_b per head, which costs what expanding one token's keys
    // would.
    key = static_cast<double>(c.kv_lora_rank + c.qk_rope_head_dim);
    value = static_cast<double>(c.kv_lora_rank);
  }
  flops += layers * heads * 2.0 * (key + value) * context;
  return flops;
}

double activation_bytes_per_token(const Config& c, DType compute, Recompute recompute) {
  const double size = static_cast<double>(size_of(compute));
  const double d = number(c.hidden_size), heads = number(c.num_attention_heads),
               key = number(c.qk_head_dim()), value = number(c.v_head_dim);
  // What a layer keeps: the residual stream twice, the latents, attention's output and the
  // logarithm of its sum, both sides of each SwiGLU, what the experts give and the scores for them.
  const double attention =
      2 * d + heads * value + number(c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim);
  const double experts = number(c.num_experts_per_tok), inner = number(c.moe_intermediate_size);
  const double moe = experts * (2 * inner + d) + number(c.n_shared_experts) * 2 * inner;
  const double dense = 2 * number(c.intermediate_size);
  // What the layer that is played back holds beside it: what is made again (normed values, queries,
  // keys, values, the experts' rows and products), and about as much of gradients.
  const double attention_again = d + heads * (2 * key + value + number(c.qk_nope_head_dim) + value);
  const double moe_again = experts * (d + inner) + d, dense_again = number(c.intermediate_size) + d;
  double kept = 0, largest = 0, played = 0;
  for (int64_t l = 0; l < c.num_hidden_layers + c.num_nextn_predict_layers; ++l) {
    const bool is_moe = l < c.num_hidden_layers ? c.is_moe(l) : c.n_routed_experts > 0;
    const double scores =
        heads * sizeof(float) + (is_moe ? 2 * number(c.n_routed_experts) * sizeof(float) : 0);
    const double again = size * (attention_again + (is_moe ? moe_again : dense_again));
    double layer = size * (attention + (is_moe ? moe : dense)) + scores;
    if (recompute == Recompute::kNone) layer += again;
    kept += layer;
    largest = std::max(largest, layer);
    played = std::max(played, (recompute == Recompute::kNone ? 1 : 2) * again);
  }
  if (recompute == Recompute::kLayers) kept = size * d * number(c.num_hidden_layers + 1) + largest;
  return kept + played + size * 4 * d;
}

}  // namespace ferry::models::deepseek_v3
