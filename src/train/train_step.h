// One training step: micro-batches forward and backward, the gradient tree, the update.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "adapter/trained_adapter.h"
#include "data/loader.h"
#include "models/trainable_lm.h"
#include "optim/gradient_tree.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/corruption_guard.h"
#include "train/shared_step.h"
#include "train/step_routing.h"

namespace ferry {

struct StepSettings {
  models::MlaForm mla_form = models::MlaForm::kExpanded;
  models::Recompute recompute = models::Recompute::kCheap;
  double mtp_weight = 0.3;  // lambda of V3 equation 25
  int64_t mtp_every = 1;    // steps whose number is a multiple run the MTP modules
  double balance_alpha = 1e-4;
  double bias_update_speed = 1e-3;  // gamma
  double clip = 1;
};

StepSettings step_settings(const TrainSettings& settings);

struct StepGradients {
  double loss = 0;                 // mean over the step's labels, nats
  std::optional<double> mtp_loss;  // mean over its labels, unweighted; none: not run
  double balance_loss = 0;
  double norm = 0;     // of the gradient, before clipping
  bool finite = true;  // losses and gradient
  int64_t labels = 0;  // that count
  int64_t label_bytes = 0;
  int64_t tokens = 0;
};

/// A micro-batch each of whose labels weighs as its maker says: rewards, preferences.
struct WeightedBatch {
  data::Batch batch;                       // label -1: not counted
  std::vector<float> weights;              // of the labels' losses, whose weighted sum is the loss
  std::vector<Tensor> given_experts = {};  // as models::LossOptions
};

struct WeightedGradients {
  StepGradients of;
  std::vector<std::vector<float>> token_losses;  // of each micro-batch, unweighted
};

/// Owner: the loop. One thread. The bits of a step depend on the weights, the batch and the
/// settings alone.
class TrainStep {
 public:
  /// `shared`: with what other processes the step is made, each giving the same arguments to each call;
  /// nullptr: alone. Its calls throw comm::LinkError then. Weighted labels are learnt from alone.
  /// `adapter`: what is trained in place of the model's weights, its factors being the optimizer's; nullptr: they are.
  /// `guard`: of `shared`, what all hold and compute is compared; nullptr: it is not.
  TrainStep(models::TrainableLm& model,
            Optimizer& optimizer,
            const StepSettings& settings,
            SharedStep* shared = nullptr,
            TrainedAdapter* adapter = nullptr,
            CorruptionGuard* guard = nullptr);

  /// Gradients of the micro-batches of step number `step`, in order; the weights stay as they are.
  /// Waits for the device once: all numbers that the host wants are read together. done(n) is called
  /// when n of this process's micro-batches have been launched, if given.
  StepGradients gradients(int64_t step,
                          std::span<const data::Batch> micro_batches,
                          const std::function<void(int64_t)>& done = {});

  /// The same in two parts, for whoever makes steps with others: prepare() leaves everything as it was, whatever goes
  /// wrong in it. Begun again, it must be given the same, and computes nothing twice. When commit() returns, every rank
  /// is known to have prepared the step: it can be finished by whoever is left. Nothing: what ranks have computed of it
  /// differs, and all are to prepare it once more (train/corruption_guard.h). `squares`: SharedStep::commit()'s, from
  /// another rank that heard them. `routing`: the experts of these micro-batches; none: the weights choose.
  void prepare(int64_t step,
               std::span<const data::Batch> micro_batches,
               const std::function<void(int64_t)>& done = {},
               const StepRouting& routing = {});
  std::optional<StepGradients> commit();
  StepGradients commit(std::span<const double> squares);

  /// The experts that the weights choose, as they are now, for the micro-batches of step number `step`. What was
  /// prepared stays prepared.
  StepRouting routing(int64_t step, std::span<const data::Batch> micro_batches);
  /// In how many layers that is, where the MTP module counts if the step runs it.
  int64_t routed_layers(int64_t step) const;

  /// The same of weighted labels, which no MTP module sees. Waits once more, for the token losses.
  WeightedGradients gradients(std::span<const WeightedBatch> micro_batches,
                              const std::function<void(int64_t)>& done = {});

  /// Updates the weights with the gradients of the last call, clipped, and the selection biases by
  /// how often each expert was chosen; an adapter's base has no weights that change. To refuse the update is not to
  /// call this. Does not wait.
  void update(double lr);

  /// The same in three parts: what is held here; what others hold comes; what follows from all of it.
  void apply(double lr);
  void spread();
  void settle();

  /// What this process holds, and has computed of the step under way, goes to others again, or has gone: throws Spoiled
  /// where it has changed (train/corruption_guard.h).
  void look_at_own() const;

 private:
  /// Of one micro-batch, on the device: the main loss, each balance loss and, if it was run, MTP's.
  struct LossTerms {
    std::vector<Tensor> tensors;
    bool mtp = false;  // the last one
    Tensor token_losses;
  };
  /// What commit() needs of what was prepared.
  struct Prepared {
    StepGradients sum;             // but losses and norm
    std::vector<LossTerms> terms;  // alone: to be read with the squares
    std::vector<std::vector<double>>
        losses;  // with others: of each micro-batch, LossTerms::tensors
    bool mtp_last = false;
  };
  /// What this process computed of a step that others have a part in: it depends on weights and micro-batches alone, so
  /// that it holds until the step is committed, however often that is begun again.
  struct Computed {
    int64_t step = 0;
    int64_t micro_batches = 0;
    SharedStep::Share share;
    uint64_t hash = 0;  // of it, where that is compared
    std::vector<Tensor> expert_counts;
    bool mtp_last = false;
  };
  /// What is asked of the micro-batches of a step: the same of each, whoever computes it.
  struct Asked {
    int64_t step = 0;
    std::span<const data::Batch> micro_batches;
    bool mtp = false;
    int64_t tokens = 0, labels = 0, mtp_labels = 0;
    const StepRouting* routing = nullptr;  // none: the weights choose
  };
  void begin(int64_t micro_batches);
  bool runs_mtp(int64_t step) const;
  void begin_share(int rank);
  /// What every kind of step asks of the losses. `share`: the micro-batch's of the step's tokens.
  models::LossOptions loss_options(double share) const;
  LossTerms micro_batch(const models::TokenBatch& tokens,
                        int64_t index,
                        const models::LossOptions& options);
  /// Takes the gradients out of the tree; reads the losses and the norm together.
  StepGradients commit_alone();
  void compute(const Asked& asked, const std::function<void(int64_t)>& done);
  Computed take_computed(int64_t step);
  void compute_others(const Asked& asked, const std::function<void(int64_t)>& done);
  void share(int64_t step);
  StepGradients finish(std::span<const double> squares);
  /// For tests: fault points that are shown what this process holds.
  void flip_held(const char* of_weights, const char* of_state) const;

  models::TrainableLm& model_;
  Optimizer& optimizer_;
  StepSettings settings_;
  SharedStep* shared_;
  TrainedAdapter* adapter_;
  CorruptionGuard* guard_;
  comm::MicroRange share_;               // of the step's micro-batches, what this process computes
  std::vector<comm::MicroRange> nodes_;  // of the tree over all of them, that make it up
  std::vector<GradientTree> trees_;      // of each node
  int64_t micro_batches_ = 0;            // of the step
  std::vector<Tensor> gradients_;        // of optimizer_.weights(), that are updated here
  std::vector<Tensor> expert_counts_;    // i32 [experts] of each MoE layer
  Prepared prepared_;
  std::optional<Computed> computed_;
  double norm_ = 0;
};

}  // namespace ferry
