// What a DeepSeek model costs: parameters, operations, memory. For refusing what cannot fit, and
// MFU.
#include <algorithm>

#include "models/deepseek_v3/model.h"

namespace ferry::models::deepseek_v3 {
namespace {

struct LayerSize {
  int64_t attention = 0;  // parameters
  int64_t dense = 0;      // of a dense MLP
  int64_t expert = 0;     // of one routed expert
  int64_t shared = 0;
  int64_t gate = 0;
};

LayerSize layer_size(const Config& c) {
  LayerSize s;
  const int64_t q = c.num_attention_heads * c.qk_head_dim();
  s.attention = c.q_lora_rank > 0 ? c.q_lora_rank * (c.hidden_size + q) : c.hidden_size * q;
  s.attention += c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim);
  s.attention += c.kv_lora_rank * c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim);
  s.attention += c.num_attention_heads * c.v_head_dim * c.hidden_size;
  s.dense = 3 * c.hidden_size * c.intermediate_size;
  s.expert = 3 * c.hidden_size * c.moe_intermediate_size;
  s.shared = c.n_shared_experts * s.expert;
  s.gate = c.hidden_size * c.n_routed_experts;
  return s;
}

/// f(attention parameters + MLP parameters used by one token) summed over the main layers and, if
/// wanted, MTP.
int64_t active_matrices(const Config& c, bool mtp) {
  const LayerSize s = layer_size(c);
  const int64_t moe = s.attention + s.gate + s.shared + c.num_experts_per_tok * s.expert;
  int64_t sum = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    sum += c.is_moe(l) ? moe : s.attention + s.dense;
  sum += c.vocab_size * c.hidden_size;  // the head
  if (mtp && c.num_nextn_predict_layers > 0)
    sum += (c.n_routed_experts > 0 ? moe : s.attention + s.dense) +
           2 * c.hidden_size * c.hidden_size + c.vocab_size * c.hidden_size;
  return sum;
}

}  // namespace

int64_t Model::parameters_total() const {
  int64_t sum = 0;
  for_each_weight(const_cast<ModelWeights&>(weights_),
                  [&](Weight& w) { sum += w.global_shape.count(); });
  return sum;
}

int64_t Model::parameters_active() const { return active_matrices(config_, true); }

double Model::flops_per_token(double context, MlaForm form, bool mtp) const {
  const Config& c = config_;
  const double layers =
      static_cast<double>(c.num_hidden_layers + (mtp ? c.num_nextn_predict_layers : 0));
  const double heads = static_cast<double>(c.num_attention_heads);
  double flops = 2.0 * static_cast<double>(active_matrices(c, mtp));
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

double Model::activation_bytes_per_token(Recompute recompute) const {
  const Config& c = config_;
  const double size = static_cast<double>(size_of(compute_));
  const auto number = [](int64_t n) { return static_cast<double>(n); };
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
