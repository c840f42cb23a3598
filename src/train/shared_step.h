// What the ranks of a run do together in a step: gradients go to their owners, who sum them in the order in which
// one process would have; numbers go to everybody; the owners' updated weights come back. Each rank has all
// weights; the optimizer's state of a weight is its owner's alone, and rank 0's, who writes checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "comm/reduce_plan.h"
#include "optim/optimizer.h"
#include "tensor/weight.h"
#include "train/held_out.h"

namespace ferry {

/// Who owns which of the weights that an optimizer trains (Optimizer::weights()).
std::vector<int> owners_of_weights(const std::vector<Weight*>& trained, int ranks);

/// One process among those that make a run together.
struct RankPlace {
  int rank = 0;
  int ranks = 1;
};

/// An optimizer over the weights that holds the state of what the rank owns; rank 0's holds all.
Optimizer optimizer_at(const RankPlace& place,
                       const OptimizerSettings& settings,
                       const std::vector<Weight*>& weights);

/// Owner: the loop. One thread. Throws comm::LinkError, as everything below that is done together.
class SharedStep {
 public:
  /// `weights`: those that the optimizer trains, in its order; of a device whose memory is the host's.
  SharedStep(comm::Communicator& ranks, std::vector<Weight*> weights, double patience_s);

  comm::Communicator& ranks() { return ranks_; }

  /// How a step of so many micro-batches is shared.
  const comm::ReducePlan& plan(int64_t micro_batches);

  /// What this rank computed of a step.
  struct Share {
    std::vector<std::vector<double>>
        losses;  // of each of its micro-batches, the same terms of each
    std::vector<std::vector<int32_t>> expert_counts;  // of each MoE layer
    std::vector<std::vector<Tensor>> sums;            // over each of its nodes, of each weight
  };
  /// What one process would have had.
  struct Whole {
    std::vector<std::vector<double>> losses;          // of each micro-batch
    std::vector<std::vector<int32_t>> expert_counts;  // of all of them
    std::vector<Tensor> gradients;                    // of weights that this rank owns
    std::vector<double> squares;                      // of every gradient that there is
  };
  Whole reduce(int64_t step, int64_t micro_batches, Share share);

  /// After the owners have updated their weights with the gradients of the last reduce(): everybody gets them.
  void spread();

  /// Brings what rank 0's optimizer holds of others' weights up to date with theirs.
  void collect_state(int64_t step, const Optimizer& optimizer);

  /// What this rank spent on steps so far: bytes that it sent, seconds in which it sent, received, and waited for
  /// others.
  struct Spent {
    uint64_t bytes = 0;
    double seconds = 0;
  };
  const Spent& spent() const { return spent_; }

  /// What rank 0 found.
  std::optional<HeldOutLoss> held_out(int64_t step, const std::optional<HeldOutLoss>& mine);

 private:
  class Counting;
  bool first() const { return ranks_.rank() == 0; }
  int owner(size_t weight) const { return owners_[weight]; }
  bool owns(size_t weight) const { return owner(weight) == ranks_.rank(); }
  std::vector<std::vector<std::byte>> exchange_numbers(const comm::ReducePlan& plan,
                                                       const Share& share);
  void take_numbers(const comm::ReducePlan& plan,
                    const Share& share,
                    const std::vector<std::vector<std::byte>>& all,
                    Whole& whole);
  using Sums = std::vector<std::vector<std::vector<Tensor>>>;  // of each rank, node, weight
  Sums exchange_gradients(Share share);
  void sum_gradients(const comm::ReducePlan& plan, Sums sums, Whole& whole);
  void exchange_squares(Whole& whole);

  comm::Communicator& ranks_;
  std::vector<Weight*> weights_;
  std::vector<int> owners_;
  double patience_s_;
  Spent spent_;
  std::optional<comm::ReducePlan> plan_;
  int64_t step_ = 0;
  // Of each rank, of each of its nodes, of each weight: whether there is a gradient. One that is nowhere is no
  // zero: its weight and state stay as they are.
  std::vector<std::vector<std::vector<uint8_t>>> there_;
  std::vector<uint8_t> updated_;  // of each weight: somewhere there is
};

}  // namespace ferry
