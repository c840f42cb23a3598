// Sorts where the kernel scans; no groups are dropped before they are marked by -infinity.
#include "ops/router/router_reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/math.h"

namespace ferry::ops {
namespace {

/// Indices by descending value, equal values by ascending index.
std::vector<int> descending(const std::vector<double>& values) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  return order;
}

double gap_after(const std::vector<double>& values, const std::vector<int>& order, size_t place) {
  if (place + 1 >= order.size()) return INFINITY;
  return values[static_cast<size_t>(order[place])] - values[static_cast<size_t>(order[place + 1])];
}

std::vector<double> scores_of(const RefTensor& logits, int64_t t, const RouterConfig& c) {
  std::vector<double> s(static_cast<size_t>(c.experts));
  double sum = 0;
  for (int64_t e = 0; e < c.experts; ++e) {
    const double x = logits[t * c.experts + e];
    s[static_cast<size_t>(e)] = c.sigmoid ? 1 / (1 + math::exp(-x)) : math::exp(x);
    sum += s[static_cast<size_t>(e)];
  }
  for (double& v : s) v = c.sigmoid ? v : v / sum;
  return s;
}

/// Sets the experts of dropped groups to -infinity.
void drop_groups(std::vector<double>& biased, const RouterConfig& c, double* margin) {
  const auto size = static_cast<size_t>(c.experts / c.groups);
  std::vector<double> worth;
  for (size_t g = 0; g < static_cast<size_t>(c.groups); ++g) {
    std::vector<double> members(biased.begin() + static_cast<long>(g * size),
                                biased.begin() + static_cast<long>((g + 1) * size));
    std::sort(members.rbegin(), members.rend());
    worth.push_back(c.group_score == GroupScore::kMax || size < 2 ? members[0]
                                                                  : members[0] + members[1]);
  }
  const std::vector<int> order = descending(worth);
  *margin = std::min(*margin, gap_after(worth, order, static_cast<size_t>(c.groups_kept) - 1));
  for (size_t place = static_cast<size_t>(c.groups_kept); place < order.size(); ++place)
    std::fill_n(biased.begin() + static_cast<long>(static_cast<size_t>(order[place]) * size),
                size,
                -INFINITY);
}

}  // namespace

RoutingReference router_reference(const RefTensor& logits,
                                  const RefTensor& bias,
                                  const RouterConfig& c,
                                  const RefTensor& given) {
  const int64_t tokens = logits.shape[0], k = c.top_k;
  RoutingReference r{
      RefTensor({tokens, k}), RefTensor({tokens, k}), RefTensor({tokens, c.experts}), INFINITY};
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<double> scores = scores_of(logits, t, c);
    std::vector<double> biased = scores;
    for (size_t e = 0; e < biased.size(); ++e)
      biased[e] += bias.values.empty() ? 0 : bias.values[e];
    drop_groups(biased, c, &r.margin);
    const std::vector<int> order = descending(biased);
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) {
      if (given.values.empty())
        r.margin = std::min(r.margin, gap_after(biased, order, static_cast<size_t>(j)));
      const auto e =
          given.values.empty() ? order[static_cast<size_t>(j)] : static_cast<int>(given[t * k + j]);
      r.experts[t * k + j] = e;
      r.weights[t * k + j] = 0 <= e && e < c.experts ? scores[static_cast<size_t>(e)] : 0.0;
      sum += r.weights[t * k + j];
    }
    for (int64_t j = 0; j < k; ++j)
      r.weights[t * k + j] *= static_cast<double>(c.scale) / (c.normalize ? sum + 1e-20 : 1.0);
    std::copy(
        scores.begin(), scores.end(), r.scores.values.begin() + static_cast<long>(t * c.experts));
  }
  return r;
}

}  // namespace ferry::ops
