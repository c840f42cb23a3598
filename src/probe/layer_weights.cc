#include "probe/layer_weights.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "ops/pair_linear/pair_linear.h"

namespace ferry::probe {
namespace {

/// Carries a failure out of a forward pass, which knows of no Result; caught in run().
struct LoadFailed {
  Status status;
};

/// The name under which the weight, or the first of a stack, is stored.
std::string first_part(const Weight& w) {
  return w.name.find('*') != std::string::npos ? expert_name(w.name, 0) : w.name;
}

}  // namespace

Result<LayerWeights> LayerWeights::create(ModelSource& from,
                                          models::CausalLm& model,
                                          const LayerWeightsOptions& options) {
  LayerWeights all(from, model, options);
  const int last = static_cast<int>(model.blocks()) + 1;  // the layer of the norm and the head
  bool has_head = false;
  for (const Weight* w : model.weights()) has_head |= w->role == WeightRole::kHead;
  all.tied_ = !has_head;
  for (Weight* w : model.weights()) {
    if (w->layer > last) continue;  // multi-token prediction: not part of answering
    Place place{w, {w->layer}};
    if (w->role == WeightRole::kEmbedding && !has_head) place.layers.push_back(last);  // tied
    const std::string first = first_part(*w);
    if (!from.stored(first))
      return fail(Code::kInvalidInput,
                  "{}: tensor \"{}\" is missing; config.json asks for it",
                  from.path(),
                  first);
    all.places_.push_back(std::move(place));
  }
  return all;
}

Result<void> LayerWeights::load(Weight& w) {
  const Device& device = model_->device();
  Weight stored{.name = w.name, .role = w.role, .global_shape = w.global_shape};
  if (options_.matrices)
    stored.value =
        Tensor::empty(w.global_shape, w.matrix() ? *options_.matrices : DType::kF32, cpu_device());
  TRY(load_weight(*dir_,
                  cpu_device(),
                  stored,
                  tied_,
                  {.keep_codes = false, .pairs = ops::pairs_wanted(device, model_->compute())}));
  if (&device == &cpu_device()) {
    w.store_as(stored);
    return {};
  }
  bool altered = false;
  Tensor value = on_device(stored.value, altered);  // not w's before it is whole: copies may throw
  Tensor scales = stored.scaled() ? on_device(stored.scales, altered) : Tensor();
  if (altered) altered_.push_back(w.name);
  w.store(std::move(value), std::move(scales), stored.blocks);
  return {};
}

Tensor LayerWeights::on_device(const Tensor& host, bool& altered) const {
  Tensor there = Tensor::empty(host.shape(), host.dtype(), model_->device());
  there.copy_bytes_from(host.data());
  std::vector<std::byte> back(host.bytes());
  there.copy_bytes_to(back.data());
  altered |= std::memcmp(back.data(), host.data(), back.size()) != 0;
  return there;
}

void LayerWeights::enter(int layer) {
  for (const Place& p : places_) {
    const bool used = std::find(p.layers.begin(), p.layers.end(), layer) != p.layers.end();
    if (used && !p.weight->value.defined()) {
      if (Result<void> loaded = load(*p.weight); !loaded)
        throw LoadFailed{std::move(loaded).error()};
    } else if (!used && !options_.keep && p.weight->value.defined()) {
      p.weight->value = {};
      p.weight->scales = {};
      p.weight->packed.reset();
    }
  }
}

Result<void> LayerWeights::run(const std::function<void()>& passes) {
  struct Calls {
    models::CausalLm& model;
    ~Calls() { model.call_at_layers({}); }
  } const calls{*model_};
  model_->call_at_layers([this](int layer) { enter(layer); });
  try {
    passes();
  } catch (LoadFailed& failed) {
    return tl::unexpected(std::move(failed.status));
  }
  return {};
}

}  // namespace ferry::probe
