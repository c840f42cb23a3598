// Which rank computes which micro-batches of a step, which sums of them it sends, and to whom. Pure: every
// rank works it out for itself, and all come to the same.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ferry::comm {

/// Micro-batches [begin, end) of a step, in its order.
struct MicroRange {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const MicroRange&) const = default;
};

/// Where the tree that sums gradients (optim/gradient_tree.h) cuts a run of so many in two: the largest power
/// of two below it. check: count >= 2.
int64_t tree_split(int64_t count);

/// The largest nodes of the tree over [0, micro_batches) that lie in `held`, in order. They are disjoint and
/// make up `held`: sums of these can be summed further as one process would have, and sums of less need not
/// be sent.
std::vector<MicroRange> maximal_nodes(int64_t micro_batches, const MicroRange& held);

/// Who owns each of so many tensors: the largest first, each to whom owns least. Whole tensors, since
/// Muon's update needs the whole matrix.
std::vector<int> owners_of(std::span<const uint64_t> bytes, int ranks);

/// How the ranks of a run share a step.
class ReducePlan {
 public:
  /// Each rank gets neighbours, at least one and at most as many as an even share rounded up: more would
  /// make the step longer. Among such ways to cut, the one with the fewest nodes of the tree, which is what is
  /// sent; of those, the most even one. check: 1 <= ranks <= micro_batches.
  ReducePlan(int64_t micro_batches, int ranks);

  int64_t micro_batches() const { return micro_batches_; }
  int ranks() const { return static_cast<int>(shares_.size()); }
  /// What the rank computes, and the sums of it that others need.
  const MicroRange& share(int rank) const { return shares_[static_cast<size_t>(rank)]; }
  const std::vector<MicroRange>& nodes(int rank) const { return nodes_[static_cast<size_t>(rank)]; }

  /// What the rank sends of gradients of these sizes, each present in every node, to their owners. Where
  /// the ranks divide powers of two evenly each holds one node, and all together send (ranks - 1) times
  /// the gradient: what the reduce-scatter of a ring sends.
  uint64_t gradient_bytes_sent(int rank,
                               std::span<const uint64_t> bytes,
                               std::span<const int> owners) const;
  /// What the rank then sends of the weights that it owns, to everybody else.
  uint64_t weight_bytes_sent(int rank,
                             std::span<const uint64_t> bytes,
                             std::span<const int> owners) const;

 private:
  int64_t micro_batches_;
  std::vector<MicroRange> shares_;
  std::vector<std::vector<MicroRange>> nodes_;  // of each rank
};

}  // namespace ferry::comm
