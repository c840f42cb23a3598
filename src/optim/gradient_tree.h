// Sums the gradients of a step's micro-batches in one fixed order, whatever runs them where.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "comm/reduce_plan.h"
#include "tensor/tensor.h"

namespace ferry {

/// The sum of an ordered list of gradients by a fixed binary tree: node [begin, end) is the sum of
/// its two halves, the left one being the largest power of two below the whole. So the bits depend
/// on the list alone, and a rank that adds an aligned power-of-two run of it holds exactly a node
/// of the tree.
///
/// Works as a binary counter: each leaf keeps at most one partial sum per set bit of the number of
/// gradients seen, so 1 + log2(micro-batches) copies at worst; every sum is made in place.
/// Owner: the training step. Thread rule: one thread.
class GradientTree {
 public:
  /// Adds the gradient of micro-batch `micro` (from 0, ascending for each leaf) to the leaf's sum
  /// and takes it over. A micro-batch in which a leaf gets no gradient counts as zeros, without a
  /// tensor. Errors: check: order, shape and type equal to the leaf's.
  void add(int64_t micro, const Tensor& leaf, Tensor gradient);

  /// The sum over micro-batches [0, micro_batches), which the tree forgets; an undefined tensor if
  /// the leaf never got one. Any add after it starts a new list.
  Tensor take(const Tensor& leaf, int64_t micro_batches);

  /// The sum over [0, micro_batches) from sums over nodes of the tree, whoever made them: sums[i] is over
  /// nodes[i], undefined where no gradient was; together, in order, the nodes are all micro-batches. The bits are
  /// those of one tree that was given all gradients. check: they are such nodes.
  static Tensor fold(int64_t micro_batches,
                     std::span<const comm::MicroRange> nodes,
                     std::vector<Tensor> sums);

  /// Forgets everything: the step is abandoned.
  void clear() { sums_.clear(); }

  size_t bytes() const;  // held now

 private:
  struct Sum {
    std::shared_ptr<Storage> leaf;  // keeps the key alive and unique
    int64_t count = 0;              // gradients seen, absent ones included
    std::vector<Tensor> level;      // level[i]: sum of 2^i of them where bit i of count is set
  };

  static void push(Sum& sum, Tensor gradient);
  static Tensor plus(Tensor left, Tensor right);

  std::unordered_map<const Storage*, Sum> sums_;
};

}  // namespace ferry
