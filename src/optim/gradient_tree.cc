#include "optim/gradient_tree.h"

#include <utility>

#include "base/check.h"
#include "ops/add/add.h"

namespace ferry {

/// left + right in left's memory, or in memory of its own where something else still reads left
/// (the gradient of a plain sum may serve two leaves).
Tensor GradientTree::plus(Tensor left, Tensor right) {
  if (!right.defined()) return left;
  if (!left.defined()) return right;
  if (!left.alone()) {
    Tensor own = Tensor::empty(left.shape(), left.dtype(), left.device());
    left.device().copy(own.data(), left.data(), left.bytes());
    left = std::move(own);
  }
  ops::accumulate(left, right);
  return left;
}

void GradientTree::push(Sum& sum, Tensor gradient) {
  size_t level = 0;
  for (; (sum.count >> level & 1) != 0; ++level)
    gradient = plus(std::exchange(sum.level[level], {}), std::move(gradient));
  if (level == sum.level.size()) sum.level.emplace_back();
  sum.level[level] = std::move(gradient);
  ++sum.count;
}

void GradientTree::add(int64_t micro, const Tensor& leaf, Tensor gradient) {
  check(gradient.shape() == leaf.shape() && gradient.dtype() == leaf.dtype(),
        "gradient tree: gradient {} {} for a leaf {} {}",
        to_string(gradient.dtype()),
        gradient.shape().str(),
        to_string(leaf.dtype()),
        leaf.shape().str());
  check(gradient.contiguous(), "gradient tree: a strided gradient {}", gradient.shape().str());
  Sum& sum = sums_[leaf.storage().get()];
  sum.leaf = leaf.storage();
  check(micro >= sum.count, "gradient tree: micro-batch {} after {}", micro, sum.count - 1);
  while (sum.count < micro) push(sum, {});
  push(sum, std::move(gradient));
}

Tensor GradientTree::take(const Tensor& leaf, int64_t micro_batches) {
  const auto it = sums_.find(leaf.storage().get());
  if (it == sums_.end()) return {};
  Sum sum = std::move(it->second);
  sums_.erase(it);
  check(sum.count <= micro_batches,
        "gradient tree: {} gradients for {} micro-batches",
        sum.count,
        micro_batches);
  while (sum.count < micro_batches) push(sum, {});
  Tensor total;
  for (size_t level = 0; level < sum.level.size();
       ++level)  // a bit that is not set left its slot empty
    total = plus(std::exchange(sum.level[level], {}), std::move(total));
  return total;
}

Tensor GradientTree::fold(int64_t micro_batches,
                          std::span<const comm::MicroRange> nodes,
                          std::vector<Tensor> sums) {
  check(nodes.size() == sums.size(),
        "gradient tree: {} sums over {} nodes",
        sums.size(),
        nodes.size());
  size_t next = 0;
  const auto sum_over = [&](const auto& self, const comm::MicroRange& node) -> Tensor {
    check(next < nodes.size() && nodes[next].begin == node.begin && nodes[next].end <= node.end,
          "gradient tree: nothing over [{}, {})",
          node.begin,
          node.end);
    if (nodes[next] == node) return std::move(sums[next++]);
    const int64_t middle = node.begin + comm::tree_split(node.size());
    Tensor left = self(self, {node.begin, middle});
    return plus(std::move(left), self(self, {middle, node.end}));
  };
  Tensor total = sum_over(sum_over, {0, micro_batches});
  check(next == nodes.size(), "gradient tree: {} of {} nodes used", next, nodes.size());
  return total;
}

size_t GradientTree::bytes() const {
  size_t n = 0;
  for (const auto& [key, sum] : sums_)
    for (const Tensor& t : sum.level)
      if (t.defined()) n += t.bytes();
  return n;
}

}  // namespace ferry
