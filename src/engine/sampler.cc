#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/math.h"
#include "base/random.h"

namespace ferry::engine {
namespace {

int32_t largest(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best]) best = i;
  return static_cast<int32_t>(best);
}

double log_sum_exp(std::span<const float> logits, double max, double inverse_temperature) {
  double sum = 0;
  for (const float l : logits)
    sum += math::exp((static_cast<double>(l) - max) * inverse_temperature);
  return math::log(sum);
}

}  // namespace

Result<void> validate(const SamplingOptions& o) {
  if (!(o.temperature >= 0 && o.temperature <= 100))
    return fail(Code::kInvalidInput,
                "temperature {}: must be from 0 (the most probable token) to 100",
                o.temperature);
  if (!(o.top_p > 0 && o.top_p <= 1))
    return fail(Code::kInvalidInput, "top-p {}: must be above 0 and at most 1", o.top_p);
  return {};
}

Result<Sampled> sample(std::span<const float> logits,
                       const SamplingOptions& options,
                       uint64_t position) {
  check(!logits.empty(), "sample: no logits");
  const int32_t best = largest(logits);
  const bool nan = std::any_of(logits.begin(), logits.end(), [](float l) { return std::isnan(l); });
  if (nan || !std::isfinite(logits[static_cast<size_t>(best)]))
    return fail(Code::kVerdict,
                "position {}: the model answers with {}: its weights are damaged, or the device "
                "computes wrongly; ferry verify tells which",
                position,
                nan ? "NaN" : "infinite numbers");
  const double max = static_cast<double>(logits[static_cast<size_t>(best)]);
  if (options.temperature == 0) return Sampled{best, -log_sum_exp(logits, max, 1), {}};
  const double inverse = 1 / options.temperature;
  const double normaliser = log_sum_exp(logits, max, inverse);
  const auto probability = [&](int32_t id) {
    return math::exp((static_cast<double>(logits[static_cast<size_t>(id)]) - max) * inverse -
                     normaliser);
  };

  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  double mass = 1;
  if (options.top_p < 1) {
    // Ties go to the lower id, so the order is total. Few tokens are kept as a rule: the head of
    // the order is sorted piece by piece, each twice as long as all before it.
    const auto before = [&](int32_t a, int32_t b) {
      const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    };
    double sum = 0;
    size_t kept = 0, sorted = 0;
    while (kept < order.size() && sum < options.top_p) {
      if (kept == sorted) {
        sorted = std::min(order.size(), std::max<size_t>(64, 3 * kept));
        std::partial_sort(order.begin() + static_cast<long>(kept),
                          order.begin() + static_cast<long>(sorted),
                          order.end(),
                          before);
      }
      sum += probability(order[kept++]);
    }
    order.resize(kept);
    mass = sum;
  }
  const double target = Random(options.seed, RandomPurpose::kSample, position).uniform(0) * mass;
  double sum = 0;
  int32_t chosen = order.back();
  for (const int32_t id : order) {
    sum += probability(id);
    if (sum > target) {
      chosen = id;
      break;
    }
  }
  Sampled s{chosen, math::log(probability(chosen) / mass), {}};
  if (options.top_p < 1) s.kept = std::move(order);
  return s;
}

}  // namespace ferry::engine
