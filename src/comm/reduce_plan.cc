#include "comm/reduce_plan.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <tuple>

#include "base/check.h"

namespace ferry::comm {
namespace {

void find_nodes(const MicroRange& node, const MicroRange& held, std::vector<MicroRange>& found) {
  if (node.end <= held.begin || held.end <= node.begin) return;
  if (held.begin <= node.begin && node.end <= held.end) return found.push_back(node);
  const int64_t middle = node.begin + tree_split(node.size());
  find_nodes({node.begin, middle}, held, found);
  find_nodes({middle, node.end}, held, found);
}

/// The best way to cut micro-batches [0, end) for the first so many ranks.
struct Cut {
  int64_t nodes = -1;   // -1: there is none
  int64_t squares = 0;  // of the shares' sizes: the less, the more even
  int64_t last = 0;     // the last rank's share
};

/// The sizes of the ranks' shares, by dynamic programming over where shares end.
std::vector<int64_t> best_shares(int64_t micro_batches, int ranks) {
  const int64_t largest = (micro_batches + ranks - 1) / ranks;
  std::vector<std::vector<Cut>> best(static_cast<size_t>(ranks) + 1,
                                     std::vector<Cut>(static_cast<size_t>(micro_batches) + 1));
  best[0][0] = {.nodes = 0};
  for (int64_t end = 1; end <= micro_batches; ++end)
    for (int64_t size = 1; size <= std::min(largest, end); ++size) {
      const auto nodes = std::ssize(maximal_nodes(micro_batches, {end - size, end}));
      for (size_t r = 1; r < best.size(); ++r) {
        const Cut& before = best[r - 1][static_cast<size_t>(end - size)];
        if (before.nodes < 0) continue;
        Cut& at = best[r][static_cast<size_t>(end)];
        const Cut with{before.nodes + nodes, before.squares + size * size, size};
        if (at.nodes < 0 || std::tie(with.nodes, with.squares) < std::tie(at.nodes, at.squares))
          at = with;
      }
    }
  std::vector<int64_t> sizes;
  int64_t end = micro_batches;
  for (size_t r = best.size() - 1; r > 0; --r) {
    sizes.push_back(best[r][static_cast<size_t>(end)].last);
    end -= sizes.back();
  }
  std::reverse(sizes.begin(), sizes.end());
  return sizes;
}

}  // namespace

int64_t tree_split(int64_t count) {
  check(count >= 2, "reduce plan: {} micro-batches cannot be cut in two", count);
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(count - 1)));
}

std::vector<MicroRange> maximal_nodes(int64_t micro_batches, const MicroRange& held) {
  std::vector<MicroRange> found;
  if (held.size() > 0) find_nodes({0, micro_batches}, held, found);
  return found;
}

std::vector<int> owners_of(std::span<const uint64_t> bytes, int ranks) {
  std::vector<size_t> by_size(bytes.size());
  std::iota(by_size.begin(), by_size.end(), size_t{0});
  std::stable_sort(
      by_size.begin(), by_size.end(), [&](size_t a, size_t b) { return bytes[a] > bytes[b]; });
  std::vector<uint64_t> owned(static_cast<size_t>(ranks), 0);
  std::vector<int> owners(bytes.size(), 0);
  for (const size_t i : by_size) {
    const auto least = std::min_element(owned.begin(), owned.end());
    *least += bytes[i];
    owners[i] = static_cast<int>(least - owned.begin());
  }
  return owners;
}

ReducePlan::ReducePlan(int64_t micro_batches, int ranks) : micro_batches_(micro_batches) {
  check(1 <= ranks && ranks <= micro_batches,
        "reduce plan: {} ranks for {} micro-batches",
        ranks,
        micro_batches);
  int64_t begin = 0;
  for (const int64_t size : best_shares(micro_batches, ranks)) {
    shares_.push_back({begin, begin + size});
    nodes_.push_back(maximal_nodes(micro_batches, shares_.back()));
    begin += size;
  }
}

uint64_t ReducePlan::gradient_bytes_sent(int rank,
                                         std::span<const uint64_t> bytes,
                                         std::span<const int> owners) const {
  uint64_t sent = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    if (owners[i] != rank) sent += bytes[i] * nodes(rank).size();
  return sent;
}

uint64_t ReducePlan::weight_bytes_sent(int rank,
                                       std::span<const uint64_t> bytes,
                                       std::span<const int> owners) const {
  uint64_t sent = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    if (owners[i] == rank) sent += bytes[i] * static_cast<uint64_t>(ranks() - 1);
  return sent;
}

}  // namespace ferry::comm
