#include "probe/probe.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/math.h"
#include "base/random.h"
#include "models/registry.h"
#include "models/slot_cache.h"
#include "ops/dispatch.h"

namespace ferry::probe {
namespace {

// The second is longer than two pages of 128 keys, as caches have them.
constexpr int64_t kSyntheticTokens[2] = {24, 270};
constexpr int64_t kTextRoom = 17;  // positions left for the text after a prompt

/// What the routers of a CPU's pass decided by: scores and bias added, [tokens, experts] for each
/// MoE layer, and how groups were dropped.
class RouterWatch final : public ops::Observer {
 public:
  struct Layer {
    int64_t experts = 0;
    int64_t groups = 1, groups_kept = 1;
    bool top2_sum = false;
    std::vector<float> biased;
  };
  void after(const ops::OpCall& call) override {
    if (std::string_view(call.op) != "router") return;
    check(call.device.kind() == DeviceKind::kCpu, "probe: routers are watched on the CPU");
    Layer layer;
    for (const ops::NamedNumber& n : call.numbers) {
      const std::string_view name = n.name;
      if (name == "groups") layer.groups = static_cast<int64_t>(n.value);
      if (name == "groups_kept") layer.groups_kept = static_cast<int64_t>(n.value);
      if (name == "top2_sum") layer.top2_sum = n.value != 0;
    }
    const float* bias = nullptr;
    for (const ops::NamedView& in : call.inputs)
      if (std::string_view(in.name) == "bias") bias = in.view.as<float>();
    for (const ops::NamedView& out : call.outputs) {
      if (std::string_view(out.name) != "scores") continue;
      layer.experts = out.view.shape[1];
      for (int64_t i = 0; i < out.view.count(); ++i)
        layer.biased.push_back(out.view.as<float>()[i] +
                               (bias != nullptr ? bias[i % layer.experts] : 0));
    }
    layers.push_back(std::move(layer));
  }
  std::vector<Layer> layers;
};

/// By how much scores must change for another choice, of experts or of groups: the least gap.
float gap_of(const RouterWatch::Layer& layer,
             const float* scores,
             std::span<const int32_t> chosen) {
  const int64_t size = layer.experts / layer.groups;
  std::vector<std::pair<float, int64_t>> worth;
  for (int64_t g = 0; g < layer.groups; ++g) {
    std::vector<float> members(scores + g * size, scores + (g + 1) * size);
    std::sort(members.rbegin(), members.rend());
    worth.emplace_back(members[0] + (layer.top2_sum && size > 1 ? members[1] : 0), -g);
  }
  std::sort(worth.rbegin(), worth.rend());
  std::vector<bool> kept(static_cast<size_t>(layer.groups));
  for (int64_t i = 0; i < layer.groups_kept; ++i)
    kept[static_cast<size_t>(-worth[static_cast<size_t>(i)].second)] = true;
  float gap = INFINITY;
  if (layer.groups_kept < layer.groups)  // two scores make up a group's worth
    gap = (worth[static_cast<size_t>(layer.groups_kept - 1)].first -
           worth[static_cast<size_t>(layer.groups_kept)].first) /
          2;
  float last = INFINITY, next = -INFINITY;
  for (int64_t e = 0; e < layer.experts; ++e) {
    const bool is_chosen = std::find(chosen.begin(), chosen.end(), e) != chosen.end();
    if (is_chosen) last = std::min(last, scores[e]);
    if (!is_chosen && kept[static_cast<size_t>(e / size)]) next = std::max(next, scores[e]);
  }
  return std::min(gap, last - next);
}

/// +1 or -1 for each projection and column.
std::vector<float> signs(int64_t hidden) {
  const Random random(1, RandomPurpose::kProbe, 0);
  std::vector<float> all(static_cast<size_t>(kProjections * hidden));
  uint64_t bits = 0;
  for (size_t i = 0; i < all.size(); ++i, bits >>= 1) {
    if (i % 64 == 0) bits = random.bits(i / 64);
    all[i] = (bits & 1) != 0 ? 1.0f : -1.0f;
  }
  return all;
}

/// The greedy text of all prompts, token by token through a cache, as a server would.
std::vector<std::vector<int32_t>> greedy_texts(models::CausalLm& model,
                                               const std::vector<Prompt>& prompts,
                                               int64_t count) {
  std::vector<std::vector<int32_t>> texts(prompts.size());
  int64_t longest = 0;
  for (const Prompt& p : prompts) longest = std::max(longest, std::ssize(p.tokens));
  models::SlotCache cache(model, std::ssize(prompts), longest + count);
  std::vector<std::vector<int32_t>> next;
  for (const Prompt& p : prompts) next.push_back(p.tokens);
  for (int64_t step = 0; step < count; ++step) {
    std::vector<models::SlotCache::Part> parts;
    std::vector<int32_t> tokens;
    for (size_t p = 0; p < prompts.size(); ++p) {
      parts.push_back({static_cast<int64_t>(p), std::ssize(next[p])});
      tokens.insert(tokens.end(), next[p].begin(), next[p].end());
    }
    const ops::Segments segments = cache.begin(parts);
    models::ForwardOptions options;
    options.cache = cache.cache();
    const Tensor hidden = model.forward(
        Tensor::from_i32(tokens, {std::ssize(tokens)}, model.device()), segments, options, nullptr);
    int64_t row = -1;
    for (size_t p = 0; p < prompts.size(); ++p) {
      row += parts[p].tokens;
      texts[p].push_back(best(model.logits(hidden, {&row, 1}).to_f32()));
      next[p] = {texts[p].back()};
    }
    cache.commit();
  }
  return texts;
}

TopLogits top_of(std::span<const float> logits, int64_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto middle = order.begin() + std::min<int64_t>(count, std::ssize(order));
  std::partial_sort(order.begin(), middle, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  TopLogits top{.log_sum_exp = log_sum_exp(logits)};
  for (auto it = order.begin(); it != middle; ++it) {
    top.tokens.push_back(*it);
    top.values.push_back(logits[static_cast<size_t>(*it)]);
  }
  return top;
}

/// |a - b| / |a|, over all elements.
double relative_distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += d * d;
    size += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  }
  return size > 0 ? std::sqrt(difference / size) : 0;
}

double largest_distance(std::span<const float> a, std::span<const float> b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

/// What rounding does to f32 answers, from what it does to bf16 ones: roundings are 2^-16 of their
/// size, but sums, which both do in f32, weigh as much as before; a sum of n terms is off by about
/// sqrt(n) roundings, and n is 1,000 or so.
constexpr double kF32Noise = 0x1p-16 * 32;

}  // namespace

Prompt random_prompt(std::string name,
                     uint64_t number,
                     int64_t tokens,
                     const models::CausalLm& model) {
  const Random random(number, RandomPurpose::kProbe, 1);
  Prompt prompt{std::move(name), {}};
  for (int64_t i = 0; i < tokens; ++i)
    prompt.tokens.push_back(static_cast<int32_t>(
        random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(model.vocab_size()))));
  return prompt;
}

std::vector<Prompt> synthetic_prompts(const models::CausalLm& model) {
  std::vector<Prompt> prompts;
  for (uint64_t p = 0; p < 2; ++p)
    prompts.push_back(random_prompt(
        fmt::format("ids {}", p + 1),
        p,
        std::min(kSyntheticTokens[p], std::max<int64_t>(1, model.max_positions() - kTextRoom)),
        model));
  return prompts;
}

Batch Batch::of(const Probes& probes) {
  Batch batch;
  for (const Probe& p : probes.list) {
    const int64_t begin = std::ssize(batch.tokens);
    batch.tokens.insert(batch.tokens.end(), p.tokens.begin(), p.tokens.end());
    batch.lengths.push_back(static_cast<int32_t>(p.tokens.size()));
    for (int64_t t = p.prompt - 1; t < std::ssize(p.tokens); ++t)
      batch.positions.push_back(begin + t);
  }
  return batch;
}

Answers ask(models::CausalLm& model,
            const Batch& batch,
            const std::vector<std::vector<int32_t>>* given,
            int64_t top_k) {
  Device& device = model.device();
  Answers answers{.tokens = std::ssize(batch.tokens)};
  models::ForwardOptions options;
  if (given != nullptr)
    for (const std::vector<int32_t>& layer : *given)
      options.given_experts.push_back(Tensor::from_i32(layer, {answers.tokens, top_k}, device));
  models::ForwardTrace trace;
  trace.keep_layer_outputs = true;
  const ops::Segments segments = ops::Segments::packed(batch.lengths, device);
  const Tensor hidden = model.forward(
      Tensor::from_i32(batch.tokens, {answers.tokens}, device), segments, options, &trace);
  std::vector<Tensor> rows;  // one by one: all logits of a long probe would be large
  for (const int64_t& p : batch.positions) rows.push_back(model.logits(hidden, {&p, 1}));
  for (const Tensor& t : trace.layer_outputs) answers.layers.push_back(t.to_f32());
  answers.layers.push_back(hidden.to_f32());
  for (const Tensor& t : trace.experts) answers.experts.push_back(t.to_i32());
  for (const Tensor& t : rows) answers.logits.push_back(t.to_f32());
  return answers;
}

Result<std::unique_ptr<models::CausalLm>> sibling(models::CausalLm& model, DType compute) {
  TRY_ASSIGN(
      std::unique_ptr<models::CausalLm> other,
      models::make_model(
          model.config_json("float32"), kPassportName, model.device(), compute, std::nullopt));
  const std::vector<Weight*> from = model.weights(), to = other->weights();
  check(from.size() == to.size(), "probe: a model's sibling has other weights");
  for (size_t i = 0; i < from.size(); ++i) {
    to[i]->store_as(*from[i]);
  }
  return other;
}

Probes record(models::CausalLm& model,
              models::CausalLm& other,
              const std::vector<Prompt>& prompts,
              const RecordOptions& options) {
  check(model.device().kind() == DeviceKind::kCpu && model.compute() != other.compute(),
        "probe: the reference is the CPU, and is measured by another type");
  Probes probes{.dtype = model.compute(), .reference = model.device().describe()};
  int64_t count = options.text_tokens;
  for (const Prompt& p : prompts)
    count = std::min(count, model.max_positions() - std::ssize(p.tokens));
  const auto texts = greedy_texts(model, prompts, std::max<int64_t>(count, 0));
  for (size_t p = 0; p < prompts.size(); ++p) {
    Probe probe{.name = prompts[p].name,
                .tokens = prompts[p].tokens,
                .prompt = std::ssize(prompts[p].tokens)};
    probe.tokens.insert(probe.tokens.end(), texts[p].begin(), texts[p].end());
    probes.list.push_back(std::move(probe));
  }
  const Batch batch = Batch::of(probes);
  RouterWatch watch, other_watch;
  const auto watched = [&](models::CausalLm& m, RouterWatch& w, const auto* given) {
    const ops::Observing observing(w);
    return ask(m, batch, given, probes.top_k);
  };
  const Answers answers =
      watched(model, watch, static_cast<const std::vector<std::vector<int32_t>>*>(nullptr));
  if (!answers.experts.empty()) probes.top_k = std::ssize(answers.experts[0]) / answers.tokens;
  const Answers others = watched(other, other_watch, &answers.experts);

  const double scale = probes.dtype == DType::kBF16 ? 1 : kF32Noise;
  const auto noise = [&](double distance) { return static_cast<float>(distance * scale); };
  const size_t hidden = answers.layers[0].size() / static_cast<size_t>(answers.tokens);
  size_t row = 0, position = 0;
  for (Probe& probe : probes.list) {
    const size_t tokens = probe.tokens.size();
    for (size_t l = 0; l < answers.layers.size(); ++l) {
      const auto rows = std::span(answers.layers[l]).subspan(row * hidden, tokens * hidden);
      probe.layers.push_back(summarise(rows, std::ssize(probe.tokens)));
      probe.layers.back().noise = noise(relative_distance(
          rows, std::span(others.layers[l]).subspan(row * hidden, tokens * hidden)));
    }
    for (size_t l = 0; l < answers.experts.size(); ++l) {
      const RouterWatch::Layer& layer = watch.layers[l];
      const auto top_k = static_cast<size_t>(probes.top_k),
                 experts = static_cast<size_t>(layer.experts);
      const auto chosen = std::span(answers.experts[l]).subspan(row * top_k, tokens * top_k);
      RouterSummary r{.experts = {chosen.begin(), chosen.end()}};
      for (size_t t = 0; t < tokens; ++t)
        r.gaps.push_back(gap_of(
            layer, layer.biased.data() + (row + t) * experts, chosen.subspan(t * top_k, top_k)));
      r.noise = noise(largest_distance(
          std::span(layer.biased).subspan(row * experts, tokens * experts),
          std::span(other_watch.layers[l].biased).subspan(row * experts, tokens * experts)));
      probe.routers.push_back(std::move(r));
    }
    double worst = 0;
    for (size_t t = static_cast<size_t>(probe.prompt) - 1; t < tokens; ++t, ++position) {
      probe.logits.push_back(top_of(answers.logits[position], options.top));
      for (const int32_t id : probe.logits.back().tokens) {
        const auto i = static_cast<size_t>(id);
        worst = std::max(worst,
                         std::abs(static_cast<double>(answers.logits[position][i]) -
                                  static_cast<double>(others.logits[position][i])));
      }
    }
    probe.logit_noise = noise(worst);
    row += tokens;
  }
  return probes;
}

LayerSummary summarise(std::span<const float> rows, int64_t tokens) {
  const size_t hidden = rows.size() / static_cast<size_t>(tokens);
  const std::vector<float> sign = signs(static_cast<int64_t>(hidden));
  LayerSummary summary;
  for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
    const std::span<const float> h = rows.subspan(t * hidden, hidden);
    double squares = 0;
    for (const float v : h) squares += static_cast<double>(v) * static_cast<double>(v);
    summary.norms.push_back(static_cast<float>(std::sqrt(squares)));
    for (size_t p = 0; p < kProjections; ++p) {
      double sum = 0;
      for (size_t i = 0; i < hidden; ++i) sum += static_cast<double>(h[i] * sign[p * hidden + i]);
      summary.projections.push_back(static_cast<float>(sum));
    }
  }
  return summary;
}

double distance(const LayerSummary& summary, std::span<const float> rows, int64_t tokens) {
  const LayerSummary mine = summarise(rows, tokens);
  // The mean square of a projection of a difference is its squared length.
  double difference = 0, size = 0;
  for (size_t i = 0; i < mine.projections.size(); ++i) {
    const double d =
        static_cast<double>(mine.projections[i]) - static_cast<double>(summary.projections[i]);
    difference += d * d / static_cast<double>(kProjections);
  }
  for (const float n : summary.norms) size += static_cast<double>(n) * static_cast<double>(n);
  return size > 0 ? std::sqrt(difference / size) : std::sqrt(difference);
}

int32_t best(std::span<const float> logits) {
  size_t at = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[at]) at = i;
  return static_cast<int32_t>(at);
}

float log_sum_exp(std::span<const float> logits) {
  double top = -INFINITY, sum = 0;
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  for (const float x : logits) sum += math::exp(static_cast<double>(x) - top);
  return static_cast<float>(top + math::log(sum));
}

std::vector<std::vector<int32_t>> reference_experts(const Probes& probes) {
  std::vector<std::vector<int32_t>> experts;
  for (const Probe& p : probes.list) {
    experts.resize(p.routers.size());
    for (size_t l = 0; l < p.routers.size(); ++l)
      experts[l].insert(experts[l].end(), p.routers[l].experts.begin(), p.routers[l].experts.end());
  }
  return experts;
}

}  // namespace ferry::probe
