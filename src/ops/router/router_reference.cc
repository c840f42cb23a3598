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

/// Softmax is taken as kernels take it, less the largest logit, which does not change it.
template <class T>
std::vector<T> scores_of(const RefArray<T>& logits, int64_t t, const RouterConfig& c) {
  using math::exp;
  std::vector<T> s(static_cast<size_t>(c.experts));
  double top = -INFINITY;
  for (int64_t e = 0; e < c.experts; ++e) top = std::max(top, value_of(logits[t * c.experts + e]));
  T sum = T(0.0);
  for (int64_t e = 0; e < c.experts; ++e) {
    const T& x = logits[t * c.experts + e];
    s[static_cast<size_t>(e)] = c.sigmoid ? sigmoid(x) : exp(x - T(top));
    if (!c.sigmoid) sum += s[static_cast<size_t>(e)];
  }
  if (!c.sigmoid)
    for (T& v : s) v = v / sum;
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

template <class T>
RoutingReference<T> router_reference(const RefArray<T>& logits,
                                     const RefTensor& bias,
                                     const RouterConfig& c,
                                     const RefTensor& given) {
  const int64_t tokens = logits.shape[0], k = c.top_k;
  RoutingReference<T> r{
      RefTensor({tokens, k}), RefArray<T>({tokens, k}), RefArray<T>({tokens, c.experts}), INFINITY};
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<T> scores = scores_of(logits, t, c);
    std::vector<double> biased;
    for (size_t e = 0; e < scores.size(); ++e)
      biased.push_back(value_of(scores[e]) + (bias.values.empty() ? 0 : bias.values[e]));
    drop_groups(biased, c, &r.margin);
    const std::vector<int> order = descending(biased);
    T sum = T(0.0);
    for (int64_t j = 0; j < k; ++j) {
      if (given.values.empty())
        r.margin = std::min(r.margin, gap_after(biased, order, static_cast<size_t>(j)));
      const auto e =
          given.values.empty() ? order[static_cast<size_t>(j)] : static_cast<int>(given[t * k + j]);
      r.experts[t * k + j] = e;
      r.weights[t * k + j] = 0 <= e && e < c.experts ? scores[static_cast<size_t>(e)] : T(0.0);
      sum += r.weights[t * k + j];
    }
    for (int64_t j = 0; j < k; ++j) {
      T& w = r.weights[t * k + j];
      w *= T(static_cast<double>(c.scale));
      if (c.normalize) w = w / (sum + T(1e-20));
    }
    std::copy(
        scores.begin(), scores.end(), r.scores.values.begin() + static_cast<long>(t * c.experts));
  }
  return r;
}

template RoutingReference<double> router_reference(const RefTensor&,
                                                   const RefTensor&,
                                                   const RouterConfig&,
                                                   const RefTensor&);
template RoutingReference<Real> router_reference(const RealTensor&,
                                                 const RefTensor&,
                                                 const RouterConfig&,
                                                 const RefTensor&);

}  // namespace ferry::ops
