// Llama (2, 3, 3.1, 3.2) and Qwen2: grouped-query attention with RoPE, SwiGLU, RMSNorm.
// Sources: Touvron et al. 2023, arXiv 2307.09288; Grattafiori et al. 2024, arXiv 2407.21783; Yang et
// al. 2024, arXiv 2407.10671.
#pragma once

#include "models/llama/config.h"
#include "models/llama/weights.h"
#include "models/position_table.h"
#include "models/trainable_lm.h"

namespace ferry::models::llama {

class Model final : public TrainableLm {
 public:
  Model(Config config, Device& device, DType compute, std::optional<DType> storage);

  Tensor forward(const Tensor& tokens,
                 const ops::Segments& segments,
                 const ForwardOptions& options,
                 ForwardTrace* trace) override;
  Losses losses(const TokenBatch& batch, const LossOptions& options) override;

  std::vector<Weight*> weights() override;
  std::vector<std::pair<std::string, const Weight*>> weight_aliases() const override { return {}; }
  std::vector<Weight*> selection_biases() override { return {}; }
  std::string config_json(std::string_view torch_dtype) const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  /// The keys of all key heads, and their values.
  std::vector<int64_t> cache_widths() const override {
    return std::vector<int64_t>(2, config_.num_key_value_heads * config_.head_dim);
  }
  int64_t blocks() const override { return config_.num_hidden_layers; }
  int64_t experts() const override { return 0; }
  int64_t max_positions() const override { return config_.max_position_embeddings; }
  int64_t position_bytes(int64_t tokens) const override { return positions_.bytes(tokens); }
  bool has_mtp() const override { return false; }
  int64_t parameters_total() const override;
  int64_t parameters_active() const override;
  double flops_per_token(double context, MlaForm form, bool mtp) const override;
  double activation_bytes_per_token(Recompute recompute) const override;

 private:
  struct Pass {  // what the layers of one forward pass share
    const ops::Segments& segments;
    KvCache* cache;
    bool recompute_layers;
    ForwardTrace* trace;
  };

  Tensor hidden(const Tensor& tokens, const Pass& pass);
  Tensor layer(const LayerWeights& w,
               const Tensor& h,
               const ops::Segments& segments,
               KvCache* cache,
               int64_t index) const;
  Tensor attention(const LayerWeights& w,
                   const Tensor& x,
                   const ops::Segments& segments,
                   KvCache* cache,
                   int64_t index) const;
  Tensor projected(const Tensor& x, const Weight& w, const std::optional<Weight>& bias) const;
  const Weight& head() const override {
    return weights_.lm_head ? *weights_.lm_head : weights_.embed_tokens;
  }
  float eps() const { return static_cast<float>(config_.rms_norm_eps); }

  Config config_;
  ModelWeights weights_;
  PositionTable positions_;
  float softmax_scale_;
};

}  // namespace ferry::models::llama
