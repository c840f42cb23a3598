// One step of reinforcement learning, from answers and their advantages to new weights. It counts how
// often a log-probability that the engine gave is not, to the bit, the one that training computes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rl/mismatch.h"
#include "rl/policy_loss.h"
#include "rl/rollouts.h"
#include "train/lesson_batches.h"
#include "train/train_step.h"

namespace ferry::rl {

struct PolicyStepSettings {
  PolicyLossSettings loss;
  int64_t minibatches = 1;
  int64_t micro_batch_tokens = 4096;
  bool keep_routing = false;
  /// Another device drew the answers than the one that trains, and not by the same bits: what parts the two is measured
  /// and corrected. Nothing is learnt from answers that are further away than this, in nats a token.
  bool drawn_elsewhere = false;
  double mismatch_max = 0;
};

/// An answer that is learnt from. prompt and rollout outlive the step.
struct Lesson {
  const TaskPrompt* prompt = nullptr;
  const Rollout* rollout = nullptr;  // with log-probabilities, by the weights as they are
  double advantage = 0;
};

struct PolicyStepReport {
  double loss = 0, gradient_norm = 0;  // means over minibatches
  double kl = 0, clipped = 0, ratio_max = 1;
  int64_t masked = 0;
  int64_t tokens = 0;                    // run for gradients, prompts included
  int64_t compared = 0, mismatches = 0;  // log-probabilities of answers' tokens
  int64_t updates = 0;                   // a minibatch in which no token weighs anything makes none
  std::optional<std::string> refused;    // why an update was not made
  std::optional<Mismatch> mismatch;      // of answers that another device drew
  bool too_far = false;                  // it is more than it may be: no update was made
};

/// Owner: the loop. One thread. `reference`: of the KL term; nullptr: there is none.
class PolicyStep {
 public:
  PolicyStep(models::TrainableLm& model,
             TrainStep& step,
             models::CausalLm* reference,
             const PolicyStepSettings& settings)
      : model_(model), step_(step), reference_(reference), settings_(settings) {}

  /// Log-probabilities of answers that another device drew are not compared bit by bit; those of training's own two
  /// passes are.
  /// Updates the weights once for each minibatch, of as many lessons each, in their order. alive() is called
  /// after each pass of the model.
  PolicyStepReport run(std::span<const Lesson> lessons,
                       double lr,
                       const std::function<void()>& alive);

  /// How many log-probabilities of answers that the model's own engine drew are not, to the bit, those of the pass that
  /// they are learnt by; whoever else draws is not asked.
  int64_t scored_otherwise(std::span<const Lesson> lessons,
                           const std::function<void()>& alive) const;

 private:
  std::vector<LessonBatch> pack(std::span<const Lesson> lessons) const;
  LessonScores score(models::CausalLm& by,
                     const std::vector<LessonBatch>& packed,
                     size_t lessons,
                     const std::function<void()>& alive,
                     bool keep_experts = false) const;

  models::TrainableLm& model_;
  TrainStep& step_;
  models::CausalLm* reference_;
  PolicyStepSettings settings_;
};

}  // namespace ferry::rl
