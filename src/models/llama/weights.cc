#include "models/llama/weights.h"

#include <string>

#include "models/make_weight.h"

namespace ferry::models::llama {
namespace {

/// Makes the weights of one layer.
class Maker {
 public:
  Maker(std::optional<DType> storage, Device& device, int64_t layer)
      : storage_(storage), device_(device), layer_(static_cast<int>(layer)) {}

  Weight matrix(const std::string& name, int64_t rows, int64_t columns, WeightRole role) const {
    return make(name, role, {rows, columns});
  }
  Weight norm(const std::string& name, int64_t size) const {
    return make(name, WeightRole::kVector, {size});
  }
  Weight bias(const std::string& name, int64_t size) const {
    return make(name, WeightRole::kBias, {size});
  }

  LayerWeights layer(const Config& c) const {
    const std::string name = "model.layers." + std::to_string(layer_ - 1);
    const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
    const auto projection = [&](const char* which, int64_t rows, int64_t columns) {
      return matrix(name + which, rows, columns, WeightRole::kProjection);
    };
    LayerWeights w;
    w.input_layernorm = norm(name + ".input_layernorm.weight", c.hidden_size);
    w.q_proj = projection(".self_attn.q_proj.weight", q, c.hidden_size);
    w.k_proj = projection(".self_attn.k_proj.weight", kv, c.hidden_size);
    w.v_proj = projection(".self_attn.v_proj.weight", kv, c.hidden_size);
    if (c.qwen2) {
      w.q_bias = bias(name + ".self_attn.q_proj.bias", q);
      w.k_bias = bias(name + ".self_attn.k_proj.bias", kv);
      w.v_bias = bias(name + ".self_attn.v_proj.bias", kv);
    }
    w.o_proj = projection(".self_attn.o_proj.weight", c.hidden_size, q);
    w.post_attention_layernorm = norm(name + ".post_attention_layernorm.weight", c.hidden_size);
    w.gate_proj = projection(".mlp.gate_proj.weight", c.intermediate_size, c.hidden_size);
    w.up_proj = projection(".mlp.up_proj.weight", c.intermediate_size, c.hidden_size);
    w.down_proj = projection(".mlp.down_proj.weight", c.hidden_size, c.intermediate_size);
    return w;
  }

 private:
  Weight make(const std::string& name, WeightRole role, const Shape& shape) const {
    return make_weight(name, role, layer_, shape, storage_, device_);
  }

  std::optional<DType> storage_;
  Device& device_;
  int layer_;
};

}  // namespace

ModelWeights make_weights(const Config& c, std::optional<DType> storage, Device& device) {
  const Maker first(storage, device, 0), last(storage, device, c.num_hidden_layers + 1);
  ModelWeights w;
  w.embed_tokens = first.matrix(
      "model.embed_tokens.weight", c.vocab_size, c.hidden_size, WeightRole::kEmbedding);
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    w.layers.push_back(Maker(storage, device, l + 1).layer(c));
  w.norm = last.norm("model.norm.weight", c.hidden_size);
  if (!c.tie_word_embeddings)
    w.lm_head = last.matrix("lm_head.weight", c.vocab_size, c.hidden_size, WeightRole::kHead);
  return w;
}

void for_each_weight(ModelWeights& w, const std::function<void(Weight&)>& f) {
  f(w.embed_tokens);
  for (LayerWeights& l : w.layers) {
    f(l.input_layernorm);
    const auto with_bias = [&](Weight& matrix, std::optional<Weight>& bias) {
      f(matrix);
      if (bias) f(*bias);
    };
    with_bias(l.q_proj, l.q_bias);
    with_bias(l.k_proj, l.k_bias);
    with_bias(l.v_proj, l.v_bias);
    f(l.o_proj);
    f(l.post_attention_layernorm);
    f(l.gate_proj);
    f(l.up_proj);
    f(l.down_proj);
  }
  f(w.norm);
  if (w.lm_head) f(*w.lm_head);
}

}  // namespace ferry::models::llama
