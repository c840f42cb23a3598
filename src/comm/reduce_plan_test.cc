// For every number of ranks and of micro-batches: each is computed once, each rank's sums are nodes of the
// one tree, and what is sent is what the formula says.
#include "comm/reduce_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace ferry::comm {
namespace {

/// All nodes of the tree, by its definition.
void all_nodes(const MicroRange& node, std::vector<MicroRange>& found) {
  found.push_back(node);
  if (node.size() < 2) return;
  int64_t left = 1;
  while (2 * left < node.size()) left *= 2;
  all_nodes({node.begin, node.begin + left}, found);
  all_nodes({node.begin + left, node.end}, found);
}

TEST(ReducePlan, TheSplitIsTheLargestPowerOfTwoBelow) {
  const std::pair<int64_t, int64_t> splits[] = {
      {2, 1}, {3, 2}, {4, 2}, {5, 4}, {7, 4}, {8, 4}, {9, 8}, {64, 32}, {65, 64}};
  for (const auto& [count, left] : splits) EXPECT_EQ(tree_split(count), left) << count;
}

TEST(ReducePlan, EveryMicroBatchOnceInNodesOfTheTree) {
  for (int64_t m = 1; m <= 40; ++m) {
    std::vector<MicroRange> tree;
    all_nodes({0, m}, tree);
    const auto is_node = [&](const MicroRange& r) {
      return std::find(tree.begin(), tree.end(), r) != tree.end();
    };
    for (int ranks = 1; ranks <= m; ++ranks) {
      const ReducePlan plan(m, ranks);
      ASSERT_EQ(plan.ranks(), ranks);
      int64_t next = 0;
      for (int r = 0; r < ranks; ++r) {
        const MicroRange share = plan.share(r);
        ASSERT_EQ(share.begin, next) << m << " micro-batches, rank " << r << " of " << ranks;
        ASSERT_GE(share.size(), 1);
        ASSERT_LE(share.size(), (m + ranks - 1) / ranks) << "the step would take longer";
        const std::vector<MicroRange>& nodes = plan.nodes(r);
        for (size_t i = 0; i < nodes.size(); ++i) {
          ASSERT_TRUE(is_node(nodes[i]));
          ASSERT_EQ(nodes[i].begin, next);
          next = nodes[i].end;
          // Maximal: no node of the tree holds two neighbours of them and nothing else.
          if (i > 0) {
            ASSERT_FALSE(is_node({nodes[i - 1].begin, nodes[i].end}));
          }
        }
        ASSERT_EQ(next, share.end);
      }
      ASSERT_EQ(next, m);
    }
  }
}

TEST(ReducePlan, WhatIsSentIsWhatTheFormulaSays) {
  const std::vector<uint64_t> bytes = {4000, 400, 4, 1600, 1600, 800};
  const uint64_t all = std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
  for (const int64_t m : {int64_t{16}, int64_t{64}})
    for (int ranks = 1; ranks <= m; ranks *= 2) {
      const ReducePlan plan(m, ranks);
      const std::vector<int> owners = owners_of(bytes, ranks);
      uint64_t gradients = 0, weights = 0;
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(plan.nodes(r).size(), 1u);
        gradients += plan.gradient_bytes_sent(r, bytes, owners);
        weights += plan.weight_bytes_sent(r, bytes, owners);
      }
      EXPECT_EQ(gradients, static_cast<uint64_t>(ranks - 1) * all);
      EXPECT_EQ(weights, static_cast<uint64_t>(ranks - 1) * all);
    }
  // Uneven numbers cost more: nodes a rank, on average, of 64 micro-batches.
  const std::pair<int, double> costs[] = {{63, 1.0}, {31, 1.1}, {15, 1.4}, {7, 1.9}};
  for (const auto& [ranks, nodes_each] : costs) {
    const ReducePlan plan(64, ranks);
    double nodes = 0;
    for (int r = 0; r < ranks; ++r) nodes += static_cast<double>(plan.nodes(r).size());
    EXPECT_NEAR(nodes / ranks, nodes_each, 0.05) << ranks;
  }
}

TEST(ReducePlan, OwnersOwnAboutTheSame) {
  const std::vector<uint64_t> bytes = {7, 100, 40, 40, 30, 30, 20, 20, 10, 3};
  for (int ranks = 1; ranks <= 9; ++ranks) {
    const std::vector<int> owners = owners_of(bytes, ranks);
    std::vector<uint64_t> owned(static_cast<size_t>(ranks), 0);
    for (size_t i = 0; i < bytes.size(); ++i) owned[static_cast<size_t>(owners[i])] += bytes[i];
    const auto [least, most] = std::minmax_element(owned.begin(), owned.end());
    EXPECT_LE(*most - *least, 100u) << ranks;  // the largest, at worst
    EXPECT_EQ(std::accumulate(owned.begin(), owned.end(), uint64_t{0}), 300u);
  }
  EXPECT_EQ(owners_of(bytes, 2), owners_of(bytes, 2));
}

}  // namespace
}  // namespace ferry::comm
