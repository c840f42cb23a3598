#include "probe/quantisation_cost.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/math.h"
#include "device/cpu/cpu_device.h"
#include "ops/segments.h"

namespace ferry::probe {
namespace {

constexpr int64_t kRowsTogether = 64;  // of logits in float64 on the host

/// The hidden states of a window.
Tensor hidden_of(models::CausalLm& model, std::span<const int32_t> ids) {
  const auto length = static_cast<int32_t>(ids.size());
  return model.forward(Tensor::from_i32(ids, {length}, model.device()),
                       ops::Segments::packed({&length, 1}, model.device()),
                       {},
                       nullptr);
}

struct Row {
  double log_sum = 0;  // log Σ exp(logit)
  size_t choice = 0;
};

Row row_of(const float* logits, size_t vocab) {
  Row r;
  for (size_t i = 1; i < vocab; ++i)
    if (logits[i] > logits[r.choice]) r.choice = i;
  const auto most = static_cast<double>(logits[r.choice]);
  double sum = 0;
  for (size_t i = 0; i < vocab; ++i) sum += math::exp(static_cast<double>(logits[i]) - most);
  r.log_sum = most + math::log(sum);
  return r;
}

struct TokenCost {
  double kl = 0, nats = 0, nats_quantised = 0;
  bool same = false;
};

/// Of each token of a window but the last, whose next one is not known.
std::vector<TokenCost> window_cost(models::CausalLm& source,
                                   models::CausalLm& quantised,
                                   const Tensor& p_hidden,
                                   const Tensor& q_hidden,
                                   std::span<const int32_t> ids) {
  const auto count = static_cast<int64_t>(ids.size()) - 1;
  const auto vocab = static_cast<size_t>(source.vocab_size());
  std::vector<TokenCost> costs(static_cast<size_t>(count));
  for (int64_t begin = 0; begin < count; begin += kRowsTogether) {
    std::vector<int64_t> rows(static_cast<size_t>(std::min(kRowsTogether, count - begin)));
    std::iota(rows.begin(), rows.end(), begin);
    const std::vector<float> p = source.logits(p_hidden, rows).to_f32(),
                             q = quantised.logits(q_hidden, rows).to_f32();
    cpu_pool().parallel_for(static_cast<int64_t>(rows.size()), [&](int64_t i, int) {
      const float* const a = p.data() + static_cast<size_t>(i) * vocab;
      const float* const b = q.data() + static_cast<size_t>(i) * vocab;
      const Row of_p = row_of(a, vocab), of_q = row_of(b, vocab);
      double kl = 0;
      for (size_t v = 0; v < vocab; ++v) {
        const double log_p = static_cast<double>(a[v]) - of_p.log_sum;
        kl += math::exp(log_p) * (log_p - (static_cast<double>(b[v]) - of_q.log_sum));
      }
      const auto next = static_cast<size_t>(ids[static_cast<size_t>(begin + i) + 1]);
      costs[static_cast<size_t>(begin + i)] = {kl,
                                               of_p.log_sum - static_cast<double>(a[next]),
                                               of_q.log_sum - static_cast<double>(b[next]),
                                               of_p.choice == of_q.choice};
    });
  }
  return costs;
}

double mean_kl(const std::vector<TokenCost>& costs) {
  double sum = 0;
  for (const TokenCost& c : costs) sum += c.kl;
  return sum / static_cast<double>(costs.size());
}

/// The codes of another model's weights while it lives.
class Exchanged {
 public:
  Exchanged(models::CausalLm& model, models::CausalLm& from, int layer) {
    const std::vector<Weight*> weights = model.weights(), others = from.weights();
    for (size_t i = 0; i < weights.size(); ++i) {
      if (weights[i]->layer != layer || !others[i]->codes()) continue;
      kept_.emplace_back(weights[i], *weights[i]);
      weights[i]->store_as(*others[i]);
    }
  }
  ~Exchanged() {
    for (auto& [weight, numbers] : kept_) *weight = std::move(numbers);
  }
  Exchanged(const Exchanged&) = delete;
  Exchanged& operator=(const Exchanged&) = delete;

 private:
  std::vector<std::pair<Weight*, Weight>> kept_;
};

}  // namespace

QuantisationCost quantisation_cost(models::CausalLm& source,
                                   models::CausalLm& quantised,
                                   std::span<const int32_t> tokens,
                                   const QuantisationCostOptions& options,
                                   const std::function<void(const CostProgress&)>& progress) {
  const std::vector<Weight*> weights = source.weights(), others = quantised.weights();
  check(tokens.size() >= 2 && weights.size() == others.size(),
        "quantisation cost: {} tokens, {} and {} weights",
        tokens.size(),
        weights.size(),
        others.size());
  std::set<int> layers;
  for (size_t i = 0; i < weights.size(); ++i) {
    check(weights[i]->name == others[i]->name,
          "quantisation cost: {} and {}",
          weights[i]->name,
          others[i]->name);
    if (others[i]->codes() && weights[i]->layer <= source.blocks())
      layers.insert(weights[i]->layer);
  }
  QuantisationCost cost;
  CostProgress done{.tokens_total = std::ssize(tokens), .layers_total = std::ssize(layers)};
  double same = 0;
  const auto context = static_cast<size_t>(std::min(options.context, source.max_positions()));
  for (size_t begin = 0; begin + 1 < tokens.size(); begin += context) {
    const auto ids = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    if (ids.size() < 2) break;
    for (const TokenCost& c :
         window_cost(source, quantised, hidden_of(source, ids), hidden_of(quantised, ids), ids)) {
      ++cost.tokens;
      cost.kl += c.kl;
      cost.kl_largest = std::max(cost.kl_largest, c.kl);
      cost.nats += c.nats;
      cost.nats_quantised += c.nats_quantised;
      same += c.same ? 1 : 0;
    }
    done.tokens += std::ssize(ids);  // of the last one of a window nothing is compared
    progress(done);
  }
  const auto count = static_cast<double>(cost.tokens);
  cost.kl /= count;
  cost.nats /= count;
  cost.nats_quantised /= count;
  cost.same_choice = same / count;
  const auto judged = static_cast<size_t>(
      std::min(options.layer_tokens, static_cast<int64_t>(std::min(tokens.size(), context))));
  if (judged < 2) return cost;
  const auto ids = tokens.first(judged);
  const Tensor expected = hidden_of(source, ids);
  for (const int layer : layers) {
    const Exchanged codes(source, quantised, layer);
    cost.layers.push_back(
        {layer, mean_kl(window_cost(source, source, expected, hidden_of(source, ids), ids))});
    ++done.layers;
    progress(done);
  }
  std::stable_sort(cost.layers.begin(),
                   cost.layers.end(),
                   [](const LayerCost& a, const LayerCost& b) { return a.kl > b.kl; });
  return cost;
}

}  // namespace ferry::probe
