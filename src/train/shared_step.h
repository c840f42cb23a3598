// What the ranks of a run do together in a step: gradients go to their owners, who sum them in the order in which
// one process would have, and give the sums to their replicas; numbers go to everybody, which is the step's commit
// point (train/recovery_plan.h); owner and replica update; the updated weights come back to the others. Each rank
// has all weights; the optimizer's state of a weight is its owner's and its replica's. (Rank 0 has room for all, and
// is brought up to date when it writes a checkpoint.)
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "comm/reduce_plan.h"
#include "optim/optimizer.h"
#include "tensor/weight.h"
#include "train/held_out.h"
#include "train/recovery_plan.h"

namespace ferry {

/// Who owns which of the weights that an optimizer trains (Optimizer::weights()).
std::vector<int> owners_of_weights(const std::vector<Weight*>& trained, int ranks);

/// One process among those that make a run together.
struct RankPlace {
  int rank = 0;
  int ranks = 1;
};

/// An optimizer over the weights that holds the state of what the rank holds; rank 0's holds all.
Optimizer optimizer_at(const RankPlace& place,
                       const OptimizerSettings& settings,
                       const std::vector<Weight*>& weights);

/// Owner: the loop. One thread. Throws comm::LinkError, as everything below that is done together.
class SharedStep {
 public:
  /// `weights`: those that the optimizer trains, in its order; of a device whose memory is the host's.
  /// bytes_at_once: gradients of weights of about so many bytes are on their way, or wait to be added up, at a time.
  SharedStep(comm::Communicator& ranks,
             std::vector<Weight*> weights,
             double patience_s,
             size_t bytes_at_once = size_t{64} << 20);

  comm::Communicator& ranks() { return ranks_; }

  /// How a step of so many micro-batches is shared.
  const comm::ReducePlan& plan(int64_t micro_batches);

  /// Who owns each of the weights, and whether this rank holds its state.
  const std::vector<int>& owners() const { return owners_; }
  bool holds(size_t weight) const { return holds_of(ranks_.rank(), owner(weight), ranks_.ranks()); }

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
    std::vector<Tensor> gradients;  // of weights that this rank holds the state of
  };
  /// at_both: the replica gets the nodes of the tree, too, and adds them up for itself, in place of a copy of what the
  /// owner has.
  Whole reduce(int64_t step, int64_t micro_batches, Share share, bool at_both = false);

  /// Of the last reduce(), by weight, as this rank finds them: the squares of each gradient that it holds.
  const std::vector<double>& held_squares() const { return held_squares_; }

  /// The commit point: when it returns, every rank has said that it came so far with the last reduce(), and every
  /// sum is at its owner and at its replica. Gives the squares of every gradient that there is. `said` goes to
  /// everybody with that, as many numbers from each rank; `heard` gets theirs, by rank.
  std::vector<double> commit(std::span<const uint64_t> said = {},
                             std::vector<std::vector<uint64_t>>* heard = nullptr);

  /// After those who hold them have updated their weights with the gradients of the last reduce(): everybody gets
  /// them.
  void spread();

  /// What is done when a rank has a successor (train/recovery_plan.h), in this order, by all of them.
  /// What commit() gave those who heard it, for those who did not; nothing for these others.
  std::optional<std::vector<double>> pass_on(const RecoveryPlan& plan);
  /// When everybody who is prepared has updated: weights for those who lack them, and state for the fresh.
  void give(const RecoveryPlan& plan, const Optimizer& optimizer);
  /// When everybody is after the same step: for the fresh, what no optimizer trains of all of a model's weights. All
  /// ranks have them, as a step's end makes them.
  void give_untrained(const RecoveryPlan& plan, const std::vector<Weight*>& all);

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
  bool sums_up(size_t weight, bool at_both) const { return at_both ? holds(weight) : owns(weight); }
  void send_sum(size_t weight, size_t node, size_t nodes, const Tensor& sum, bool at_both);
  /// Weights, one after the other.
  struct Some {
    size_t begin = 0, end = 0;
  };
  std::vector<Some> at_once() const;
  Sums exchange_gradients(const Some& some, Share& share, bool at_both);
  void sum_gradients(
      const comm::ReducePlan& plan, const Some& some, Sums sums, bool at_both, Whole& whole);
  void take_squares(const Whole& whole);
  void copy_sums(Whole& whole);

  comm::Communicator& ranks_;
  std::vector<Weight*> weights_;
  std::vector<int> owners_;
  double patience_s_;
  size_t bytes_at_once_;
  Spent spent_;
  std::optional<comm::ReducePlan> plan_;
  int64_t step_ = 0;
  // Of each rank, of each of its nodes, of each weight: whether there is a gradient. One that is nowhere is no
  // zero: its weight and state stay as they are.
  std::vector<std::vector<std::vector<uint8_t>>> there_;
  std::vector<uint8_t> updated_;      // of each weight: somewhere there is
  std::vector<double> own_squares_;   // of the gradients that are owned here
  std::vector<double> held_squares_;  // of each weight: where its sum is held
  std::vector<double> squares_;       // what the last commit() gave
};

}  // namespace ferry
