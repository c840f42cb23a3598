// The optimizer: which weights are updated how, and the state of each. AdamW for everything, or
// Muon for the matrices and AdamW for the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "tensor/weight.h"

namespace ferry {

struct OptimizerSettings {
  enum class Kind { kAdamW, kMuon };

  Kind kind = Kind::kAdamW;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // decoupled: times the learning rate
  bool decay_all = false;     // vectors too
  double muon_momentum = 0.95;
  double muon_update_rms = 0.18;  // of an update at learning rate 1, so that AdamW's rates fit Muon
  int muon_lift_steps = 8;        // of Newton-Schulz (optim/muon.h)
  int muon_converge_steps = 2;
};

/// How a weight is updated, by its role alone:
///
///     role                            kAdamW    kMuon                          decays
///     vectors (norms, biases)         AdamW     AdamW                          if decay_all
///     the embedding and the head      AdamW     AdamW                          yes
///     projections, the router's too;  AdamW     Muon                           yes
///       those of many heads whole
///     stacked experts                 AdamW     Muon, each matrix by itself    yes
///     the selection bias              none      none                           no
struct UpdateRule {
  enum class Kind { kNone, kAdamW, kMuon };
  Kind kind = Kind::kNone;
  bool decays = false;
  bool operator==(const UpdateRule&) const = default;
};
UpdateRule rule_for(WeightRole role, const OptimizerSettings& settings);

/// The sums of squares of the gradients, on the device (ops/sum_squares); not defined if no
/// gradient is. Undefined gradients count as zeros.
Tensor gradient_squares(std::span<const Tensor> gradients);

/// The norm of all gradients together, times `scale`, from what gradient_squares gave: a function
/// of the shapes and of the order of the list.
struct GradientNorm {
  double norm = 0;
  bool finite = true;  // false: an Inf or NaN somewhere; the update must be refused
};
GradientNorm gradient_norm(std::span<const double> squares, double scale);

/// What to multiply gradients with so that their norm is at most `clip`; 1 if clip is 0.
double clip_scale(double norm, double clip);

/// Owns the state (f32, on each weight's device) of the weights it was given; updates them in place
/// and raises their versions. The weights must outlive it. Thread rule: one thread.
class Optimizer {
 public:
  /// Weights that are not trained are left out of weights(). `holds`, if given, says of weights()[i]
  /// whether its state is held here: where ranks share it, others hold and update the rest. Errors: check:
  /// names unique, values f32.
  Optimizer(const OptimizerSettings& settings,
            const std::vector<Weight*>& weights,
            const std::function<bool(size_t)>& holds = {});

  /// The weights that weights() will be.
  static std::vector<Weight*> trained(const OptimizerSettings& settings,
                                      const std::vector<Weight*>& weights);

  /// One update. gradients[i] is that of weights()[i], whose shape it has; an undefined one leaves
  /// its weight and state alone. `gradient_scale` (1 / micro-batches, clipping) multiplies them on
  /// the fly. check: the state of each defined one is held here.
  void step(std::span<const Tensor> gradients, double lr, double gradient_scale);

  /// What step() does with weights()[i] alone, of that update which it makes next; steps() stays. For whoever looks at
  /// one weight's update without the memory that all of them take. check: as of step().
  void step_one(size_t i, const Tensor& gradient, double lr, double gradient_scale);

  const std::vector<Weight*>& weights() const { return weights_; }

  /// Updates made: Adam's bias correction depends on it. Part of a checkpoint, with the tensors
  /// below.
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps);

  /// "adam.m.NAME" and "adam.v.NAME", or "muon.m.NAME", in the order of weights(), of those that are
  /// held here. A checkpoint reads them, and fills them on resume (the tensors share the state's memory).
  void for_each_state(
      const std::function<void(const std::string& name, const Tensor& state)>& f) const;

  /// The same of weights()[i] alone; none if it is not held here.
  std::vector<Tensor> state(size_t i) const;

  size_t state_bytes() const;

 private:
  struct Slot {
    UpdateRule rule;
    Tensor m, v;  // Muon has no v; neither: it is not held here
  };

  OptimizerSettings settings_;
  std::vector<Weight*> weights_;
  std::vector<Slot> slots_;
  int64_t steps_ = 0;
};

}  // namespace ferry
