#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "base/check.h"
#include "ops/adamw/adamw.h"
#include "ops/sum_squares/sum_squares.h"
#include "optim/muon.h"

namespace ferry {

UpdateRule rule_for(WeightRole role, const OptimizerSettings& settings) {
  const bool muon = settings.kind == OptimizerSettings::Kind::kMuon;
  switch (role) {
    case WeightRole::kProjection:
    case WeightRole::kFine:
    case WeightRole::kExperts:
    case WeightRole::kRouter:
      return {muon ? UpdateRule::Kind::kMuon : UpdateRule::Kind::kAdamW, true};
    case WeightRole::kEmbedding:
    case WeightRole::kHead: return {UpdateRule::Kind::kAdamW, true};
    case WeightRole::kVector:
    case WeightRole::kBias: return {UpdateRule::Kind::kAdamW, settings.decay_all};
    case WeightRole::kSelectionBias: break;
  }
  return {};
}

Tensor gradient_squares(std::span<const Tensor> gradients) {
  std::vector<Tensor> given;
  for (const Tensor& g : gradients)
    if (g.defined()) given.push_back(g);
  return given.empty() ? Tensor{} : ops::sum_squares(given);
}

GradientNorm gradient_norm(std::span<const double> squares, double scale) {
  const ops::SquareSum total = ops::total_of(squares);
  const double norm = std::abs(scale) * std::sqrt(total.sum);
  return {.norm = norm, .finite = total.finite && std::isfinite(norm)};
}

double clip_scale(double norm, double clip) {
  check(clip >= 0, "clip: {}", clip);
  return clip == 0 ? 1 : std::min(1.0, clip / (norm + 1e-6));  // 1e-6 as PyTorch has it
}

std::vector<Weight*> Optimizer::trained(const OptimizerSettings& settings,
                                        const std::vector<Weight*>& weights) {
  std::vector<Weight*> out;
  for (Weight* w : weights)
    if (rule_for(w->role, settings).kind != UpdateRule::Kind::kNone) out.push_back(w);
  return out;
}

Optimizer::Optimizer(const OptimizerSettings& settings,
                     const std::vector<Weight*>& weights,
                     const std::function<bool(size_t)>& holds)
    : settings_(settings), weights_(trained(settings, weights)) {
  std::unordered_set<std::string> names;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const Weight& w = *weights_[i];
    check(names.insert(w.name).second, "optimizer: two weights are called {}", w.name);
    check(w.value.dtype() == DType::kF32,
          "optimizer: {} is {}; the master copy is f32",
          w.name,
          to_string(w.value.dtype()));
    Slot slot{.rule = rule_for(w.role, settings)};
    if (!holds || holds(i)) {
      slot.m = Tensor::zeros(w.value.shape(), DType::kF32, w.value.device());
      if (slot.rule.kind == UpdateRule::Kind::kAdamW)
        slot.v = Tensor::zeros(w.value.shape(), DType::kF32, w.value.device());
    }
    slots_.push_back(std::move(slot));
  }
}

void Optimizer::step(std::span<const Tensor> gradients, double lr, double gradient_scale) {
  check(gradients.size() == weights_.size(),
        "optimizer: {} gradients for {} weights",
        gradients.size(),
        weights_.size());
  for (size_t i = 0; i < weights_.size(); ++i)
    if (gradients[i].defined()) step_one(i, gradients[i], lr, gradient_scale);
  ++steps_;
}

void Optimizer::step_one(size_t i, const Tensor& gradient, double lr, double gradient_scale) {
  check(lr >= 0 && std::isfinite(lr) && std::isfinite(gradient_scale),
        "optimizer: lr {}, gradient scale {}",
        lr,
        gradient_scale);
  Weight& w = *weights_[i];
  const Slot& slot = slots_[i];
  check(slot.m.defined(), "optimizer: the state of {} is another rank's", w.name);
  const double decay = slot.rule.decays ? settings_.weight_decay : 0;
  if (slot.rule.kind == UpdateRule::Kind::kMuon) {
    muon_update(w,
                slot.m,
                gradient,
                {.lr = lr,
                 .momentum = settings_.muon_momentum,
                 .weight_decay = decay,
                 .update_rms = settings_.muon_update_rms,
                 .newton_schulz = {.lift = settings_.muon_lift_steps,
                                   .converge = settings_.muon_converge_steps}},
                gradient_scale);
    return;
  }
  const ops::AdamW adamw{.lr = lr,
                         .beta1 = settings_.beta1,
                         .beta2 = settings_.beta2,
                         .eps = settings_.eps,
                         .weight_decay = decay,
                         .step = steps_ + 1};
  ops::adamw_update(w, slot.m, slot.v, gradient, adamw, static_cast<float>(gradient_scale));
}

void Optimizer::set_steps(int64_t steps) {
  check(steps >= 0, "optimizer: {} steps", steps);
  steps_ = steps;
}

void Optimizer::for_each_state(
    const std::function<void(const std::string&, const Tensor&)>& f) const {
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (!slots_[i].m.defined()) continue;
    const bool muon = slots_[i].rule.kind == UpdateRule::Kind::kMuon;
    f(fmt::format("{}.m.{}", muon ? "muon" : "adam", weights_[i]->name), slots_[i].m);
    if (!muon) f(fmt::format("adam.v.{}", weights_[i]->name), slots_[i].v);
  }
}

std::vector<Tensor> Optimizer::state(size_t i) const {
  std::vector<Tensor> held;
  for (const Tensor& t : {slots_[i].m, slots_[i].v})
    if (t.defined()) held.push_back(t);
  return held;
}

size_t Optimizer::state_bytes() const {
  size_t n = 0;
  for_each_state([&n](const std::string&, const Tensor& t) { n += t.bytes(); });
  return n;
}

}  // namespace ferry
