// CausalLm: what generating, scoring and verifying need of a model, whatever its architecture.
// A model is written once, from ops alone: no device, no mode. Generating is forward with a cache;
// training is forward with a tape recording (models/trainable_lm.h).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/forward.h"
#include "models/kv_cache.h"
#include "ops/segments.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace ferry::models {

/// These rows of x [n, width], copied together run by run; a view where they are one run.
Tensor rows_of(const Tensor& x, std::span<const int64_t> rows);

class CausalLm {
 public:
  virtual ~CausalLm() = default;

  /// The hidden state of every token after the last block and the final norm: [tokens, hidden].
  virtual Tensor forward(const Tensor& tokens,
                         const ops::Segments& segments,
                         const ForwardOptions& options,
                         ForwardTrace* trace) = 0;
  /// logits f32 [rows, vocab] of these rows of what forward returned. The head is the largest
  /// matrix of a small model: it sees the rows that somebody wants, and no other.
  Tensor logits(const Tensor& hidden, std::span<const int64_t> rows);
  /// -log p of each token's label, f32 [tokens]; 0 where the label (i32 [tokens]) is -1. Logits are
  /// never stored whole.
  Tensor token_losses(const Tensor& hidden, const Tensor& labels);

  /// Whether the model has modules that predict one token more (V3's MTP).
  virtual bool has_mtp() const = 0;
  /// What logits() makes a guess of the token after the next one from: [tokens, hidden], of each
  /// token's hidden state before the final norm (ForwardTrace) and the token after it (`next`, i32
  /// [tokens]). `cache` was made for drafting; its begin() announced the tokens' own positions.
  /// Check: the model has the modules.
  virtual Tensor draft(const Tensor& before_norm,
                       const Tensor& next,
                       const ops::Segments& segments,
                       KvCache& cache);

  /// All parameters, in the checkpoint's order. Pointers live as long as the model.
  virtual std::vector<Weight*> weights() = 0;
  /// Second names under which checkpoints repeat weights: (name, weight).
  virtual std::vector<std::pair<std::string, const Weight*>> weight_aliases() const = 0;

  /// So many pages of kPageTokens tokens; `drafting`: with room for what draft() keeps.
  std::unique_ptr<KvCache> make_cache(int64_t pages, bool drafting = false) const;
  int64_t cache_bytes_per_token(bool drafting = false) const;
  virtual std::string config_json(std::string_view torch_dtype) const = 0;
  virtual int64_t vocab_size() const = 0;
  /// How many numbers a block keeps of a token, in parts as it appends them.
  virtual std::vector<int64_t> cache_widths() const = 0;
  virtual int64_t blocks() const = 0;   // transformer blocks that answering runs through
  virtual int64_t experts() const = 0;  // routed experts of a MoE layer; 0: none
  virtual int64_t max_positions() const = 0;
  /// What a pass over the first `tokens` positions takes of the device's memory for being able to tell
  /// them apart, once and for all passes.
  virtual int64_t position_bytes(int64_t tokens) const = 0;
  virtual int64_t parameters_total() const = 0;

  DType compute() const { return compute_; }
  Device& device() const { return *device_; }

  /// Until it is given another, `entering` is called as a forward pass comes to each layer, before
  /// the layer's first op, with the numbers of ops::begin_layer: there whoever loads weights as they
  /// are needed does so. What it throws ends the pass. {}: nothing is called.
  void call_at_layers(std::function<void(int layer)> entering) { entering_ = std::move(entering); }

 protected:
  CausalLm(Device& device, DType compute) : device_(&device), compute_(compute) {}
  /// The matrix from hidden states to logits, [vocab, hidden]; may be the embedding.
  virtual const Weight& head() const = 0;
  /// Says that a pass comes to a layer, numbered as in Weight::layer: to the tape, if one records, to
  /// observers and to whoever loads weights. Observers first: they may still read the weights of the
  /// layer before.
  void begin_layer(int64_t number) const;

  Device* device_;
  DType compute_;  // f32 or bf16: the type of activations
  std::function<void(int layer)> entering_;
};

}  // namespace ferry::models
