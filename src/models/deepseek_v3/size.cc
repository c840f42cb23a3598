// What a DeepSeek model costs: parameters, operations, memory. For refusing what cannot fit, and
// MFU.
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
  for_each_weight(const_cast<ModelWeights&>(weights_), [&](Weight& w) { sum += w.value.count(); });
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

double Model::activation_bytes_per_token(bool recompute) const {
  const Config& c = config_;
  const double size = static_cast<double>(size_of(compute_));
  const double d = static_cast<double>(c.hidden_size);
  if (recompute) return size * d * static_cast<double>(c.num_hidden_layers + 1);
  const double heads = static_cast<double>(c.num_attention_heads);
  const double attention =
      heads * static_cast<double>(3 * c.qk_head_dim() + 2 * c.v_head_dim + c.qk_nope_head_dim +
                                  c.v_head_dim) +
      static_cast<double>(2 * c.q_lora_rank + 3 * c.kv_lora_rank + 2 * c.qk_rope_head_dim);
  const double k = static_cast<double>(c.num_experts_per_tok),
               inner = static_cast<double>(c.moe_intermediate_size);
  const double moe =
      k * (2 * d + 3 * inner) + static_cast<double>(c.n_shared_experts) * 3 * inner + 2 * d;
  const double dense = 3 * static_cast<double>(c.intermediate_size) + d;
  double sum = 0;
  for (int64_t l = 0; l < c.num_hidden_layers + c.num_nextn_predict_layers; ++l) {
    const bool moe_layer = l < c.num_hidden_layers ? c.is_moe(l) : c.n_routed_experts > 0;
    sum += 5 * d + attention + (moe_layer ? moe : dense);
  }
  return size * (sum + 4 * d);
}

}  // namespace ferry::models::deepseek_v3
