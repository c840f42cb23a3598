#include "models/deepseek_v3/weights.h"

#include <string>

#include "models/make_weight.h"

namespace ferry::models::deepseek_v3 {
namespace {

/// Makes the weights of one layer.
class Maker {
 public:
  Maker(const Config& config, std::optional<DType> storage, Device& device, int64_t layer)
      : c_(config), storage_(storage), device_(device), layer_(static_cast<int>(layer)) {}

  Weight matrix(const std::string& name,
                const Shape& shape,
                WeightRole role = WeightRole::kProjection) const {
    return make(name + ".weight", role, shape);
  }
  Weight norm(const std::string& name, int64_t size) const {
    return make(name + ".weight", WeightRole::kVector, {size});
  }

  MlpWeights mlp(const std::string& name, int64_t intermediate) const {
    return {matrix(name + ".gate_proj", {intermediate, c_.hidden_size}),
            matrix(name + ".up_proj", {intermediate, c_.hidden_size}),
            matrix(name + ".down_proj", {c_.hidden_size, intermediate})};
  }

  AttentionWeights attention(const std::string& name) const {
    const int64_t heads = c_.num_attention_heads, q = heads * c_.qk_head_dim();
    AttentionWeights w;
    if (c_.q_lora_rank > 0) {
      w.q_a_proj = matrix(name + ".q_a_proj", {c_.q_lora_rank, c_.hidden_size});
      w.q_a_layernorm = norm(name + ".q_a_layernorm", c_.q_lora_rank);
      w.q_b_proj = matrix(name + ".q_b_proj", {q, c_.q_lora_rank});
    } else {
      w.q_proj = matrix(name + ".q_proj", {q, c_.hidden_size});
    }
    w.kv_a_proj_with_mqa = matrix(name + ".kv_a_proj_with_mqa",
                                  {c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size});
    w.kv_a_layernorm = norm(name + ".kv_a_layernorm", c_.kv_lora_rank);
    w.kv_b_proj = matrix(name + ".kv_b_proj",
                         {heads * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank},
                         WeightRole::kFine);  // multiplied head by head
    w.o_proj = matrix(name + ".o_proj", {c_.hidden_size, heads * c_.v_head_dim});
    return w;
  }

  MoeWeights moe(const std::string& name) const {
    const int64_t experts = c_.n_routed_experts, inner = c_.moe_intermediate_size;
    const auto stack = [&](const char* which, int64_t outputs, int64_t inputs) {
      return matrix(name + ".experts.*." + which, {experts, outputs, inputs}, WeightRole::kExperts);
    };
    MoeWeights w;
    w.gate = matrix(name + ".gate", {experts, c_.hidden_size}, WeightRole::kRouter);
    if (c_.topk_method == TopK::kNoAuxTc)
      w.e_score_correction_bias =
          make(name + ".gate.e_score_correction_bias", WeightRole::kSelectionBias, {experts});
    w.experts = {stack("gate_proj", inner, c_.hidden_size),
                 stack("up_proj", inner, c_.hidden_size),
                 stack("down_proj", c_.hidden_size, inner)};
    if (c_.n_shared_experts > 0)
      w.shared_experts = mlp(name + ".shared_experts", c_.n_shared_experts * inner);
    return w;
  }

  /// `index`: as checkpoints number blocks, from 0.
  LayerWeights block(int64_t index, bool moe_layer) const {
    const std::string name = "model.layers." + std::to_string(index);
    LayerWeights w;
    w.input_layernorm = norm(name + ".input_layernorm", c_.hidden_size);
    w.self_attn = attention(name + ".self_attn");
    w.post_attention_layernorm = norm(name + ".post_attention_layernorm", c_.hidden_size);
    if (moe_layer)
      w.moe = moe(name + ".mlp");
    else
      w.mlp = mlp(name + ".mlp", c_.intermediate_size);
    return w;
  }

  MtpWeights mtp() const {
    const int64_t index = c_.num_hidden_layers;
    const std::string name = "model.layers." + std::to_string(index);
    MtpWeights w;
    w.enorm = norm(name + ".enorm", c_.hidden_size);
    w.hnorm = norm(name + ".hnorm", c_.hidden_size);
    w.eh_proj = matrix(name + ".eh_proj", {c_.hidden_size, 2 * c_.hidden_size}, WeightRole::kFine);
    w.layer = block(index, c_.n_routed_experts > 0);
    w.shared_head_norm = norm(name + ".shared_head.norm", c_.hidden_size);
    return w;
  }

 private:
  Weight make(const std::string& name, WeightRole role, const Shape& shape) const {
    return make_weight(name, role, layer_, shape, storage_, device_);
  }

  const Config& c_;
  std::optional<DType> storage_;
  Device& device_;
  int layer_;
};

void visit(std::optional<Weight>& w, const std::function<void(Weight&)>& f) {
  if (w) f(*w);
}

void visit(MlpWeights& w, const std::function<void(Weight&)>& f) {
  f(w.gate_proj);
  f(w.up_proj);
  f(w.down_proj);
}

void visit(LayerWeights& w, const std::function<void(Weight&)>& f) {
  f(w.input_layernorm);
  AttentionWeights& a = w.self_attn;
  visit(a.q_proj, f);
  visit(a.q_a_proj, f);
  visit(a.q_a_layernorm, f);
  visit(a.q_b_proj, f);
  f(a.kv_a_proj_with_mqa);
  f(a.kv_a_layernorm);
  f(a.kv_b_proj);
  f(a.o_proj);
  f(w.post_attention_layernorm);
  if (w.mlp) visit(*w.mlp, f);
  if (w.moe) {
    f(w.moe->gate);
    visit(w.moe->e_score_correction_bias, f);
    visit(w.moe->experts, f);
    if (w.moe->shared_experts) visit(*w.moe->shared_experts, f);
  }
}

}  // namespace

ModelWeights make_weights(const Config& config, std::optional<DType> storage, Device& device) {
  const auto of_layer = [&](int64_t layer) { return Maker(config, storage, device, layer); };
  const int64_t blocks = config.num_hidden_layers;
  const Shape table = {config.vocab_size, config.hidden_size};
  ModelWeights w;
  w.embed_tokens = of_layer(0).matrix("model.embed_tokens", table, WeightRole::kEmbedding);
  for (int64_t l = 0; l < blocks; ++l)
    w.layers.push_back(of_layer(l + 1).block(l, config.is_moe(l)));
  w.norm = of_layer(blocks + 1).norm("model.norm", config.hidden_size);
  if (!config.tie_word_embeddings)
    w.lm_head = of_layer(blocks + 1).matrix("lm_head", table, WeightRole::kHead);
  if (config.num_nextn_predict_layers > 0) w.mtp = of_layer(blocks + 2).mtp();
  return w;
}

void for_each_weight(ModelWeights& w, const std::function<void(Weight&)>& f) {
  f(w.embed_tokens);
  for (LayerWeights& layer : w.layers) visit(layer, f);
  f(w.norm);
  visit(w.lm_head, f);
  if (!w.mtp) return;
  f(w.mtp->enorm);
  f(w.mtp->hnorm);
  f(w.mtp->eh_proj);
  visit(w.mtp->layer, f);
  f(w.mtp->shared_head_norm);
}

}  // namespace ferry::models::deepseek_v3
