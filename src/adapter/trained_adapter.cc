#include "adapter/trained_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "adapter/low_rank.h"
#include "base/alive.h"
#include "base/check.h"
#include "base/json.h"
#include "base/random.h"
#include "base/units.h"
#include "ops/axpby/axpby.h"

namespace ferry {
namespace {

/// The projections of the model's blocks, in order. Where there are routed experts, those of attention alone:
/// PEFT (0.21) takes gate_proj, up_proj and down_proj there for the experts', whichever MLP they are of.
std::vector<Weight*> adaptable(const std::vector<Weight*>& weights, int64_t blocks) {
  const bool experts = std::any_of(weights.begin(), weights.end(), [](const Weight* w) {
    return w->role == WeightRole::kExperts;
  });
  std::vector<Weight*> all;
  for (Weight* w : weights)
    if ((w->role == WeightRole::kProjection || w->role == WeightRole::kFine) && w->layer >= 1 &&
        w->layer <= blocks && !(experts && w->name.find(".mlp.") != std::string::npos))
      all.push_back(w);
  return all;
}

Weight factor(const Weight& of, char which, const Shape& shape) {
  Weight w;
  w.name = adapter_tensor_name(of.name, which);
  w.role = WeightRole::kProjection;
  w.layer = of.layer;
  w.global_shape = shape;
  w.value = Tensor::zeros(shape, DType::kF32, of.value.device());
  return w;
}

/// kaiming_uniform with a = sqrt(5), as torch.nn.Linear begins.
void draw(Weight& a, uint64_t seed) {
  const Random random(seed, RandomPurpose::kInit, name_hash(a.name.data(), a.name.size()));
  const double bound = 1 / std::sqrt(static_cast<double>(a.value.dim(1)));
  std::vector<float> values(static_cast<size_t>(a.value.count()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(bound * (2 * random.uniform(i) - 1));
  a.value.assign_f32(values);
}

std::string listed(const std::set<std::string>& names) {
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

Result<TrainedAdapter> TrainedAdapter::create(AdapterConfig config,
                                              BaseIdentity base,
                                              const std::vector<Weight*>& weights,
                                              int64_t blocks,
                                              uint64_t seed) {
  std::set<std::string> there, chosen;
  const std::vector<Weight*> candidates = adaptable(weights, blocks);
  for (const Weight* w : candidates) there.emplace(module_of(w->name));
  if (config.targets == std::vector<std::string>{kAllLinear})
    config.targets.assign(there.begin(), there.end());
  for (const std::string& target : config.targets)
    if (!there.contains(target))
      return fail(Code::kInvalidInput,
                  "lora.target_modules: {} is no projection of this model that can be adapted; "
                  "these can: {}",
                  printable(target),
                  listed(there));
    else if (!chosen.insert(target).second)
      return fail(Code::kInvalidInput, "lora.target_modules: names {} twice", target);
  config.targets.assign(chosen.begin(), chosen.end());
  TrainedAdapter adapter(std::move(config), std::move(base));
  const int64_t rank = adapter.config_.rank;
  for (Weight* w : weights) w->value.set_needs_grad(false);
  for (Weight* w : candidates) {
    if (!chosen.contains(std::string(module_of(w->name)))) continue;
    const int64_t out = w->value.dim(0), in = w->value.dim(1);
    if (rank > std::max(out, in))
      return fail(Code::kInvalidInput,
                  "lora.rank {}: {} is {}; factors of that rank are larger than it",
                  rank,
                  w->name,
                  w->value.shape().str());
    check(w->value.dtype() == DType::kF32 && w->value.contiguous(),
          "adapter: {} is no f32 master copy",
          w->name);
    auto adapted = std::make_unique<Adapted>();
    adapted->weight = w;
    adapted->base = Tensor::empty(w->value.shape(), DType::kF32, w->value.device());
    w->value.device().copy(adapted->base.data(), w->value.data(), w->value.bytes());
    adapted->a = factor(*w, 'A', {rank, in});
    adapted->b = factor(*w, 'B', {out, rank});
    draw(adapted->a, seed);
    w->value.set_needs_grad(true);
    adapter.by_storage_[w->value.storage().get()] = adapted.get();
    adapter.adapted_.push_back(std::move(adapted));
    still_alive();
  }
  return adapter;
}

std::vector<Weight*> TrainedAdapter::factors() {
  std::vector<Weight*> all;
  for (const auto& a : adapted_) {
    all.push_back(&a->a);
    all.push_back(&a->b);
  }
  return all;
}

std::vector<std::string> TrainedAdapter::adapted_names() const {
  std::vector<std::string> names;
  for (const auto& a : adapted_) names.push_back(a->weight->name);
  return names;
}

int64_t TrainedAdapter::parameters() const {
  int64_t count = 0;
  for (const auto& a : adapted_) count += a->a.value.count() + a->b.value.count();
  return count;
}

int64_t TrainedAdapter::adapted() const {
  int64_t count = 0;
  for (const auto& a : adapted_) count += a->base.count();
  return count;
}

int64_t TrainedAdapter::largest() const {
  int64_t most = 0;
  for (const auto& a : adapted_) most = std::max(most, a->base.count());
  return most;
}

void TrainedAdapter::take(const Tensor& weight,
                          const Tensor& gradient,
                          const std::function<void(const Tensor&, Tensor)>& add) const {
  const auto it = by_storage_.find(weight.storage().get());
  check(it != by_storage_.end(),
        "adapter: a gradient of {} that is not adapted",
        weight.shape().str());
  const Adapted& of = *it->second;
  LowRankGradients d = low_rank_gradients(gradient, of.b.value, of.a.value, config_.scale());
  add(of.a.value, std::move(d.a));
  add(of.b.value, std::move(d.b));
}

void TrainedAdapter::merge() {
  for (const auto& a : adapted_) {
    ops::axpby(1, a->base, 0, a->weight->value);
    add_low_rank(a->weight->value, a->b.value, a->a.value, config_.scale());
    a->weight->changed();
    still_alive();
  }
}

std::string describe(const TrainedAdapter& adapter) {
  const AdapterConfig& c = adapter.config();
  return fmt::format("adapter    rank {} on {}: {} parameters are trained",
                     c.rank,
                     fmt::join(c.targets, ", "),
                     format_count(static_cast<double>(adapter.parameters())));
}

std::vector<NamedTensor> TrainedAdapter::tensors() const {
  std::vector<NamedTensor> all;
  for (const auto& a : adapted_)
    for (const Weight* w : {&a->a, &a->b})
      all.push_back({.name = w->name, .value = w->value, .stored = DType::kF32});
  return all;
}

Result<void> TrainedAdapter::restore(const Adapter& from) {
  if (from.factors().size() != adapted_.size())
    return fail(Code::kInvalidInput,
                "{}: adapts {} weights, the settings {}",
                from.path(),
                from.factors().size(),
                adapted_.size());
  for (const auto& a : adapted_) {
    const AdapterFactors* const f = from.find(a->weight->name);
    if (f == nullptr || f->a.shape() != a->a.value.shape() || f->b.shape() != a->b.value.shape())
      return fail(Code::kInvalidInput,
                  "{}: does not adapt {} as the settings say",
                  from.path(),
                  a->weight->name);
    a->a.value.assign_f32(f->a.to_f32());
    a->b.value.assign_f32(f->b.to_f32());
    a->a.changed();
    a->b.changed();
  }
  merge();
  return {};
}

}  // namespace ferry
