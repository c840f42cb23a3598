// The tape: what ops record while a model runs forward, and the playback that computes gradients.
//
// A value is identified by its storage, so slices and reshapes need no nodes: the gradient of a
// view is the same region of the gradient of its storage. Activations have gradients of their own
// dtype, leaves (weights) likewise: a trained weight is f32, so are its gradients.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tensor/tensor.h"

namespace ferry {

class Tape;

/// Where a node's backward function reads the gradients of its outputs and adds those of its
/// inputs.
class Grads {
 public:
  /// The gradient of an output; zeros if nothing downstream used it.
  Tensor of(const Tensor& output) const;
  bool has(const Tensor& output) const;
  bool wanted(const Tensor& input) const { return input.needs_grad(); }

  /// Adds d (shape of `input`) to the input's gradient. Takes d over without a copy when it is the
  /// first and covers the whole storage. Ignored for inputs that need no gradient.
  void add(const Tensor& input, Tensor d);

 private:
  friend class Tape;
  explicit Grads(Tape& tape) : tape_(tape) {}
  Tape& tape_;
};

struct PlaybackHooks {
  /// Called once for each leaf, as soon as nothing can add to its gradient any more. The gradient
  /// is handed over: the tape forgets it.
  std::function<void(const Tensor& leaf, Tensor gradient)> leaf_ready;
  /// Called when a layer (Tape::begin_layer) has been played back whole, highest first.
  std::function<void(int layer)> layer_done;
};

/// Owner: whoever runs a forward pass. Thread rule: one thread. Records while a Recording is alive.
class Tape {
 public:
  using Backward = std::function<void(Grads&)>;
  /// into += from, same shape, on the device. autograd knows no kernels: ops provides this one
  /// (ops::accumulate), so that every addition passes the one dispatch point.
  using Accumulate = void (*)(const Tensor& into, const Tensor& from);

  explicit Tape(Accumulate accumulate) : accumulate_(accumulate) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The tape that records on this thread, or nullptr.
  static Tape* current();

  class Recording {  // makes a tape current on this thread; nests
   public:
    explicit Recording(Tape* tape);  // nullptr pauses recording
    ~Recording();
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;

   private:
    Tape* previous_;
  };

  /// Records a node if any input needs a gradient; its outputs then need one too. `input_grads`
  /// gives the gradients of activations; `weight_grads` (may be empty) those of weights, which a
  /// schedule may play later. Both may be called more than once only if the tape is played twice.
  /// What they capture is what is kept until then: whole tensors if their values are needed,
  /// without_memory() if it is only to name them.
  void record(const char* op,
              std::vector<Tensor> inputs,
              std::vector<Tensor> outputs,
              Backward input_grads,
              Backward weight_grads = {});

  /// record() even if no named input needs a gradient, because something unnamed (a weight) does.
  void record_always(const char* op,
                     std::vector<Tensor> inputs,
                     std::vector<Tensor> outputs,
                     Backward input_grads);

  /// For the output of a cheap op: `again` makes its values once more, to the same bits, so that who
  /// needs them for a gradient need not keep them until then (Tensor::saved). Unless keep_all().
  void makes_again(Tensor& output, std::function<Tensor()> again) const {
    if (!keep_all_) output.set_again(std::move(again));
  }
  /// Whether what could be made again is kept all the same, from here on: faster, more memory.
  void keep_all(bool on) { keep_all_ = on; }

  /// The nodes recorded from here on belong to this layer (numbers ascend in forward order).
  void begin_layer(int layer) { layer_ = layer; }
  int layer() const { return layer_; }

  /// Plays back from `output`, whose gradient is `d_output`. Within a layer all input gradients
  /// come first, then the weight gradients in the same order. Frees what each node saved once it is
  /// played.
  void backward(const Tensor& output, Tensor d_output, const PlaybackHooks& hooks = {});
  /// The same from several outputs at once.
  void backward(std::vector<std::pair<Tensor, Tensor>> seeds, const PlaybackHooks& hooks = {});

  /// After backward without a leaf_ready hook: the gradient, or an undefined tensor if none
  /// arrived.
  Tensor grad(const Tensor& leaf) const;
  /// Gradients stay and further backward calls add to them, until this.
  void clear_grads() { grads_.clear(); }

  size_t nodes() const { return nodes_.size(); }

 private:
  friend class Grads;
  struct Node {
    const char* op;
    int layer;
    std::vector<Tensor> inputs, outputs;  // without memory
    Backward input_grads, weight_grads;
  };
  struct Gradient {
    std::shared_ptr<Storage> value;  // keeps the key alive and unique
    Tensor sum;                      // covers its storage, whose layout is the value's
  };

  void push(Node node);
  void add(const Tensor& input, Tensor d);
  Tensor read(const Tensor& value) const;
  void finish_uses(const Node& node, const PlaybackHooks& hooks);

  Accumulate accumulate_;
  int layer_ = 0;
  bool keep_all_ = false;
  std::vector<Node> nodes_;
  std::unordered_map<const Storage*, Gradient> grads_;
  std::unordered_map<const Storage*, int> uses_;  // how many nodes still to play read this leaf
  std::unordered_map<const Storage*, Tensor> leaves_;
  std::unordered_set<const Storage*> produced_;     // outputs of nodes: not leaves
  std::unordered_set<const Storage*> handed_over_;  // leaves whose gradient is complete
};

}  // namespace ferry
