// TrainableLm: what training needs of a model beside answering: losses to play back from, what may
// be computed again, the biases that are not trained by gradient, and what a step costs.
#pragma once

#include <vector>

#include "models/causal_lm.h"

namespace ferry::models {

/// What is computed again for the gradient instead of being kept. Never changes bits.
enum class Recompute {
  kNone,    // nothing
  kCheap,   // outputs of cheap ops, and queries, keys and values (Tape::makes_again)
  kLayers,  // these, and each layer as a whole: only its input is kept
};

/// A batch for training. Label -1: not counted.
struct TokenBatch {
  Tensor tokens;      // i32 [tokens]
  Tensor labels;      // i32 [tokens]: the next token
  Tensor weights;     // f32 [tokens]: of each label's main loss; not defined: each 1
  Tensor mtp_tokens;  // i32 [tokens]: the next token, 0 where there is none; only for MTP
  Tensor mtp_labels;  // i32 [tokens]: the token after the next; only for MTP
  ops::Segments segments;
};

struct LossOptions {
  MlaForm mla_form = MlaForm::kAbsorbed;
  Recompute recompute = Recompute::kCheap;
  double balance_alpha = 0;  // weight of the sequence-wise balance loss; 0: not computed
  float scale = 1;           // of the main loss: 1 / labels of the whole step
  float mtp_scale = 0;       // lambda / mtp labels of the whole step; 0: the module is not run
  std::vector<Tensor> given_experts = {};  // as ForwardOptions
};

/// The terms of the loss, each f32 [1] and ready to be played back from with gradient 1.
struct Losses {
  Tensor main;
  Tensor mtp;                   // not defined if not run
  std::vector<Tensor> balance;  // one for each MoE layer, if balance_alpha > 0
  Tensor token_losses;          // f32 [tokens]: -log p of each label, 0 where there is none
  ForwardTrace trace;           // layer outputs are not kept
};

/// What a pass chooses experts in.
struct RoutedLayers {
  int64_t layers = 0, mtp_layers = 0;  // the MTP module's are apart: not each step runs it
  int64_t top_k = 0;                   // experts of a token in each
};

class TrainableLm : public CausalLm {
 public:
  virtual Losses losses(const TokenBatch& batch, const LossOptions& options) = 0;

  /// For each MoE layer its selection bias, in layer order; empty if the model has none.
  virtual std::vector<Weight*> selection_biases() = 0;

  /// None of a model without experts.
  virtual RoutedLayers routed_layers() const { return {}; }

  virtual int64_t parameters_active() const = 0;  // used for one token
  /// Multiplications and additions of one token's forward pass, attention included, at a mean
  /// context of `context` tokens, with or without the MTP modules. A training step costs three
  /// times as much.
  virtual double flops_per_token(double context, MlaForm form, bool mtp) const = 0;
  /// Bytes for each token of a training step at the most, beside weights and their gradients: what
  /// the forward pass keeps and what the layer played back makes.
  virtual double activation_bytes_per_token(Recompute recompute) const = 0;

 protected:
  TrainableLm(Device& device, DType compute) : CausalLm(device, compute) {}
};

/// Draws the initial values of every weight from `seed`: normal with the config's standard
/// deviation, ones for norms, zeros for biases. A weight's values depend on seed and name
/// alone.
void initialise(TrainableLm& model, uint64_t seed);

}  // namespace ferry::models
