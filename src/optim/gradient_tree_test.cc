#include "optim/gradient_tree.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/random.h"

namespace ferry {
namespace {

Device& cpu() { return **open_device("cpu"); }

/// Gradients of wildly different magnitude: any other order of addition gives other bits.
std::vector<float> gradient(int64_t micro) {
  const Random random(11, RandomPurpose::kTest, static_cast<uint64_t>(micro));
  std::vector<float> g(37);
  for (size_t i = 0; i < g.size(); ++i)
    g[i] = static_cast<float>(random.normal(2 * i) * std::exp2(20 * random.uniform(2 * i + 1)));
  return g;
}

/// The tree as documented, written as a recursion.
std::vector<float> tree(int64_t begin, int64_t end) {
  if (end - begin == 1) return gradient(begin);
  const auto half = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(end - begin - 1)));
  std::vector<float> left = tree(begin, begin + half);
  const std::vector<float> right = tree(begin + half, end);
  for (size_t i = 0; i < left.size(); ++i) left[i] += right[i];
  return left;
}

Tensor tensor(const std::vector<float>& v) {
  return Tensor::from_f32(v, {static_cast<int64_t>(v.size())}, cpu());
}

Tensor sum_of(const std::vector<Tensor>& list) {
  GradientTree t;
  const Tensor leaf = Tensor::zeros({37}, DType::kF32, cpu());
  for (size_t i = 0; i < list.size(); ++i) t.add(static_cast<int64_t>(i), leaf, list[i]);
  return t.take(leaf, static_cast<int64_t>(list.size()));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// What ranks would hold of the list, summed by each, folded by one.
Tensor folded(const std::vector<Tensor>& list, int ranks) {
  const auto n = static_cast<int64_t>(list.size());
  const comm::ReducePlan plan(n, ranks);
  const Tensor leaf = Tensor::zeros({37}, DType::kF32, cpu());
  std::vector<comm::MicroRange> nodes;
  std::vector<Tensor> sums;
  for (int r = 0; r < ranks; ++r)
    for (const comm::MicroRange& node : plan.nodes(r)) {
      GradientTree t;
      for (int64_t m = node.begin; m < node.end; ++m)
        if (const Tensor& g = list[static_cast<size_t>(m)]; g.defined())
          t.add(m - node.begin, leaf, tensor(g.to_f32()));
      nodes.push_back(node);
      sums.push_back(t.take(leaf, node.size()));
    }
  return GradientTree::fold(n, nodes, std::move(sums));
}

TEST(GradientTree, FoldedByAnyNumberOfRanksIsTheSame) {
  for (int64_t n = 1; n <= 20; ++n) {
    std::vector<Tensor> list, gaps;
    for (int64_t i = 0; i < n; ++i) {
      list.push_back(tensor(gradient(i)));
      gaps.push_back(i % 3 == 1 || i < n / 3 ? Tensor{} : tensor(gradient(i)));
    }
    GradientTree alone;
    const Tensor leaf = Tensor::zeros({37}, DType::kF32, cpu());
    for (int64_t i = 0; i < n; ++i)
      if (const Tensor& g = gaps[static_cast<size_t>(i)]; g.defined())
        alone.add(i, leaf, tensor(g.to_f32()));
    const Tensor with_gaps = alone.take(leaf, n);
    for (int ranks = 1; ranks <= n; ++ranks) {
      EXPECT_TRUE(same_bits(folded(list, ranks).to_f32(), tree(0, n))) << n << " by " << ranks;
      const Tensor f = folded(gaps, ranks);
      ASSERT_EQ(f.defined(), with_gaps.defined());
      if (f.defined()) {
        EXPECT_TRUE(same_bits(f.to_f32(), with_gaps.to_f32())) << n << " by " << ranks;
      }
    }
  }
  EXPECT_FALSE(GradientTree::fold(2, std::vector<comm::MicroRange>{{0, 2}}, {Tensor{}}).defined());
  const std::vector<comm::MicroRange> no_nodes = {{0, 1}, {1, 3}, {3, 4}};
  EXPECT_THROW(GradientTree::fold(4, no_nodes, std::vector<Tensor>(3)), Bug);
}

TEST(GradientTree, EqualsTheExplicitTree) {
  for (int64_t n = 1; n <= 33; ++n) {
    std::vector<Tensor> list;
    for (int64_t i = 0; i < n; ++i) list.push_back(tensor(gradient(i)));
    EXPECT_TRUE(same_bits(sum_of(list).to_f32(), tree(0, n))) << n;
  }
  std::vector<float> running = gradient(0);  // the inputs tell orders apart
  for (int64_t i = 1; i < 8; ++i)
    for (size_t j = 0; j < running.size(); ++j) running[j] += gradient(i)[j];
  EXPECT_FALSE(same_bits(running, tree(0, 8)));
}

TEST(GradientTree, RanksThatHoldPowersOfTwoGiveTheSameBits) {
  for (const int64_t n : {8, 16, 24, 40}) {
    for (int64_t run = 1; run <= 8; run *= 2) {
      std::vector<Tensor> ranks;
      for (int64_t begin = 0; begin < n; begin += run) {
        std::vector<Tensor> own;
        for (int64_t i = begin; i < begin + run; ++i) own.push_back(tensor(gradient(i)));
        ranks.push_back(sum_of(own));
      }
      EXPECT_TRUE(same_bits(sum_of(ranks).to_f32(), tree(0, n)))
          << n << " micro-batches in runs of " << run;
    }
  }
}

TEST(GradientTree, AnAbsentGradientIsZero) {
  const Tensor leaf = Tensor::zeros({37}, DType::kF32, cpu());
  for (int mask = 0; mask < 32; ++mask) {  // which of 5 micro-batches give one
    GradientTree sparse, whole;
    for (int64_t i = 0; i < 5; ++i) {
      const bool given = (mask >> i & 1) != 0;
      if (given) sparse.add(i, leaf, tensor(gradient(i)));
      whole.add(i, leaf, given ? tensor(gradient(i)) : Tensor::zeros({37}, DType::kF32, cpu()));
    }
    const Tensor got = sparse.take(leaf, 5), expected = whole.take(leaf, 5);
    EXPECT_EQ(got.defined(), mask != 0);
    if (mask == 0) continue;
    EXPECT_TRUE(same_bits(got.to_f32(), expected.to_f32())) << mask;
  }
}

TEST(GradientTree, HoldsALogarithmOfCopiesAndLeavesAliasesAlone) {
  GradientTree t;
  const Tensor a = Tensor::zeros({37}, DType::kF32, cpu()),
               b = Tensor::zeros({37}, DType::kF32, cpu());
  const Tensor shared = tensor(gradient(0));
  t.add(0, a, shared);
  t.add(0, b, shared);
  t.add(1, a, tensor(gradient(1)));
  EXPECT_TRUE(same_bits(shared.to_f32(), gradient(0)));
  EXPECT_TRUE(same_bits(t.take(a, 2).to_f32(), tree(0, 2)));
  EXPECT_TRUE(same_bits(t.take(b, 2).to_f32(), gradient(0)));
  size_t peak = 0;
  for (int64_t i = 0; i < 16; ++i) {
    t.add(i, a, tensor(gradient(i)));
    peak = std::max(peak, t.bytes());
  }
  EXPECT_EQ(peak, 4 * a.bytes());
  EXPECT_EQ(t.bytes(), a.bytes());
  EXPECT_THROW(t.add(3, a, tensor(gradient(3))), Bug);
  t.clear();
  EXPECT_EQ(t.bytes(), 0u);
}

}  // namespace
}  // namespace ferry
