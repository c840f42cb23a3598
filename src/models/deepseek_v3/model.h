// DeepSeek V2/V3/R1: multi-head latent attention, mixture of experts, multi-token prediction.
// Sources: DeepSeek-V2 (arXiv 2405.04434) section 2.1, DeepSeek-V3 (arXiv 2412.19437) section 2.
#pragma once

#include "models/deepseek_v3/config.h"
#include "models/deepseek_v3/weights.h"
#include "models/position_table.h"
#include "models/trainable_lm.h"
#include "ops/router/router.h"

namespace ferry::models::deepseek_v3 {

class Model final : public TrainableLm {
 public:
  Model(Config config, Device& device, DType compute, std::optional<DType> storage);

  Tensor forward(const Tensor& tokens,
                 const ops::Segments& segments,
                 const ForwardOptions& options,
                 ForwardTrace* trace) override;
  Losses losses(const TokenBatch& batch, const LossOptions& options) override;

  Tensor draft(const Tensor& before_norm,
               const Tensor& next,
               const ops::Segments& segments,
               KvCache& cache) override;

  std::vector<Weight*> weights() override;
  std::vector<std::pair<std::string, const Weight*>> weight_aliases() const override;
  std::vector<Weight*> selection_biases() override;
  std::string config_json(std::string_view torch_dtype) const override;
  int64_t vocab_size() const override { return config_.vocab_size; }
  std::vector<int64_t> cache_widths() const override {
    return {config_.kv_lora_rank, config_.qk_rope_head_dim};
  }
  int64_t blocks() const override { return config_.num_hidden_layers; }
  int64_t experts() const override { return config_.n_routed_experts; }
  RoutedLayers routed_layers() const override;
  int64_t max_positions() const override { return config_.max_position_embeddings; }
  int64_t position_bytes(int64_t tokens) const override { return positions_.bytes(tokens); }
  bool has_mtp() const override { return config_.num_nextn_predict_layers > 0; }
  int64_t parameters_total() const override;
  int64_t parameters_active() const override;
  double flops_per_token(double context, MlaForm form, bool mtp) const override;
  double activation_bytes_per_token(Recompute recompute) const override;

  const Config& config() const { return config_; }

 private:
  struct PassOptions {
    ForwardOptions forward;
    bool recompute_layers = false;
    float balance_alpha = 0;
  };
  struct Pass {  // what the layers of one forward pass share
    const ops::Segments& segments;
    const PassOptions& options;
    ForwardTrace* trace;
    std::vector<Tensor> balance = {};  // the balance losses so far
    int64_t layer = 0;
    int64_t moe_layer = 0;
  };

  Tensor hidden_before_norm(const Tensor& tokens, Pass& pass);
  Tensor run_mtp(const Tensor& before_norm, const Tensor& next, Pass& pass);
  Tensor run_layer(const LayerWeights& w, const Tensor& h, Pass& pass);
  std::vector<Tensor> layer(const LayerWeights& w,
                            const Tensor& h,
                            const Pass& pass,
                            ForwardTrace* trace) const;
  Tensor attention(const AttentionWeights& w, const Tensor& x, const Pass& pass) const;
  Tensor queries(const AttentionWeights& w, const Tensor& x, const Pass& pass) const;
  Tensor attend_expanded(const AttentionWeights& w,
                         const Tensor& q,
                         const Tensor& c,
                         const Tensor& k_pe,
                         const Pass& pass) const;
  Tensor attend_absorbed(const AttentionWeights& w,
                         const Tensor& q,
                         const Tensor& c,
                         const Tensor& k_pe,
                         const Pass& pass) const;
  Tensor mlp(const MlpWeights& w, const Tensor& x) const;
  Tensor moe(const MoeWeights& w,
             const Tensor& x,
             const Pass& pass,
             ForwardTrace* trace,
             Tensor* balance) const;
  const Weight& head() const override {
    return weights_.lm_head ? *weights_.lm_head : weights_.embed_tokens;
  }
  float eps() const { return static_cast<float>(config_.rms_norm_eps); }

  Config config_;
  ModelWeights weights_;
  PositionTable positions_;
  ops::RouterConfig router_;
  float softmax_scale_;
};

}  // namespace ferry::models::deepseek_v3
