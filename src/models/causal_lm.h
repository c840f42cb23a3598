// CausalLm: what training, generation and verification need of a model, whatever its architecture.
// A model is written once, from ops alone: no device, no mode. Training is forward with a tape
// recording; generating is forward with a cache.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "models/kv_cache.h"
#include "ops/segments.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::models {

/// MLA computed with per-head keys and values (fewer operations in training) or on the latent
/// itself (what a cache holds). The two are different numerics; whatever generates or scores uses
/// absorbed.
enum class MlaForm { kExpanded, kAbsorbed };

/// What is computed again for the gradient instead of being kept. Never changes bits.
enum class Recompute {
  kNone,    // nothing
  kCheap,   // outputs of cheap ops, and queries, keys and values (Tape::makes_again)
  kLayers,  // these, and each layer as a whole: only its input is kept
};

struct ForwardOptions {
  MlaForm mla_form = MlaForm::kAbsorbed;
  Recompute recompute = Recompute::kCheap;
  double balance_alpha = 0;  // weight of the sequence-wise balance loss; 0: not computed
  KvCache* cache = nullptr;  // absorbed form only; the tokens are appended to it
  const std::vector<Tensor>* given_experts =
      nullptr;  // replay: i32 [tokens, top_k] for each MoE layer
};

/// What a forward pass leaves besides its result, in layer order.
struct ForwardTrace {
  std::vector<Tensor> experts;         // i32 [tokens, top_k] of each MoE layer
  std::vector<Tensor> router_weights;  // f32 [tokens, top_k]
  std::vector<Tensor> balance_losses;  // f32 [1] of each MoE layer, if balance_alpha > 0
  std::vector<Tensor> layer_outputs;   // filled if keep_layer_outputs is set
  bool keep_layer_outputs = false;
};

/// A batch for training or scoring. Label -1: not counted.
struct TokenBatch {
  Tensor tokens;  // i32 [tokens]
  Tensor labels;  // i32 [tokens]: the next token
  Tensor
      mtp_tokens;  // i32 [tokens]: the next token (0 where there is none); not needed without MTP
  Tensor mtp_labels;  // i32 [tokens]: the token after the next
  ops::Segments segments;
};

struct LossOptions {
  float scale = 1;      // of the main loss: 1 / labels of the whole step
  float mtp_scale = 0;  // lambda / mtp labels of the whole step; 0: the module is not run
};

/// The terms of the loss, each f32 [1] and ready to be played back from with gradient 1.
struct Losses {
  Tensor main;
  Tensor mtp;                   // not defined if not run
  std::vector<Tensor> balance;  // one for each MoE layer
  Tensor token_losses;          // f32 [tokens]: -log p of each label, 0 where there is none
  ForwardTrace trace;
};

class CausalLm {
 public:
  virtual ~CausalLm() = default;

  /// The hidden state of every token after the last block and the final norm: [tokens, hidden].
  virtual Tensor forward(const Tensor& tokens,
                         const ops::Segments& segments,
                         const ForwardOptions& options,
                         ForwardTrace* trace) = 0;
  /// logits f32 [tokens, vocab] of hidden states that forward returned.
  virtual Tensor logits(const Tensor& hidden) = 0;
  /// The losses of a batch; logits are never stored whole.
  virtual Losses losses(const TokenBatch& batch,
                        const ForwardOptions& options,
                        const LossOptions& loss) = 0;

  /// All parameters, in the checkpoint's order. Pointers live as long as the model.
  virtual std::vector<Weight*> weights() = 0;
  /// Second names under which checkpoints repeat weights: (name, weight).
  virtual std::vector<std::pair<std::string, const Weight*>> weight_aliases() const = 0;
  /// For each MoE layer its selection bias, in layer order; empty if the model has none.
  virtual std::vector<Weight*> selection_biases() = 0;

  virtual std::unique_ptr<KvCache> make_cache(int64_t slots, int64_t tokens_per_slot) = 0;
  virtual std::string config_json(std::string_view torch_dtype) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t experts() const = 0;  // routed experts of a MoE layer; 0: none
  virtual int64_t max_positions() const = 0;
  virtual int32_t eos_token() const = 0;
  virtual bool has_mtp() const = 0;
  virtual int64_t parameters_total() const = 0;
  virtual int64_t parameters_active() const = 0;  // used for one token
  /// Multiplications and additions of one token's forward pass, attention included, at a mean
  /// context of `context` tokens, with or without the MTP modules. A training step costs three
  /// times as much.
  virtual double flops_per_token(double context, MlaForm form, bool mtp) const = 0;
  /// Bytes for each token of a training step at the most, beside weights and their gradients: what
  /// the forward pass keeps and what the layer played back makes.
  virtual double activation_bytes_per_token(Recompute recompute) const = 0;

  DType compute() const { return compute_; }
  Device& device() const { return *device_; }

  /// Until it is given another, `entering` is called as a forward pass comes to each layer, before
  /// the layer's first op, with the numbers of ops::begin_layer: there whoever loads weights as they
  /// are needed does so. What it throws ends the pass. {}: nothing is called.
  void call_at_layers(std::function<void(int layer)> entering) { entering_ = std::move(entering); }

 protected:
  CausalLm(Device& device, DType compute) : device_(&device), compute_(compute) {}
  Device* device_;
  DType compute_;  // f32 or bf16: the type of activations
  std::function<void(int layer)> entering_;
};

/// Draws the initial values of every weight from `seed`: normal with the config's standard
/// deviation, ones for norms, zeros for selection biases. A weight's values depend on seed and name
/// alone.
void initialise(CausalLm& model, uint64_t seed);

/// Makes the model that config.json describes, with uninitialised weights of type `storage`, or,
/// without one, with weights that have no memory yet: their values are to be set before use.
/// Errors: kInvalidInput naming the field.
Result<std::unique_ptr<CausalLm>> make_model(std::string_view config_json,
                                             const std::string& path,
                                             Device& device,
                                             DType compute,
                                             std::optional<DType> storage);

}  // namespace ferry::models
