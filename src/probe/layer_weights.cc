#include "probe/layer_weights.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "device/cpu/cpu_device.h"

namespace ferry::probe {
namespace {

/// Carries a failure out of a forward pass, which knows of no Result; caught in run().
struct LoadFailed {
  Status status;
};

/// Checkpoints name a block's weights "model.layers.N...".
std::optional<int> block_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int block = 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), block);
  return block;
}

}  // namespace

Result<LayerWeights> LayerWeights::create(ModelDir& dir,
                                          models::CausalLm& model,
                                          const LayerWeightsOptions& options) {
  LayerWeights all(dir, model, options);
  const auto config = nlohmann::json::parse(dir.config_json(), nullptr, false);
  const int blocks = config.value("num_hidden_layers", 0);
  bool has_head = false;
  for (const Weight* w : model.weights()) has_head |= w->name == "lm_head.weight";
  for (Weight* w : model.weights()) {
    const std::optional<int> block = block_of(w->name);
    Place place{w, {}};
    if (block && *block >= blocks) continue;  // multi-token prediction: not part of answering
    if (block) {
      place.layers = {*block + 1};
    } else if (w->name == "model.embed_tokens.weight") {
      place.layers = {0};
      if (!has_head) place.layers.push_back(blocks + 1);
    } else {
      place.layers = {blocks + 1};
    }
    const size_t star = w->name.find('*');
    const std::string first =
        star == std::string::npos ? w->name : std::string(w->name).replace(star, 1, "0");
    if (dir.info(first) == nullptr)
      return fail(Code::kInvalidInput,
                  "{}: tensor \"{}\" is missing; config.json asks for it",
                  dir.path(),
                  first);
    all.places_.push_back(std::move(place));
  }
  return all;
}

Result<void> LayerWeights::load(Weight& w) {
  const DType dtype = w.global_shape.rank() > 1 ? options_.matrices : DType::kF32;
  Device& device = model_->device();
  TRY_ASSIGN(const Tensor host,
             w.name.find('*') == std::string::npos
                 ? dir_->load(w.name, cpu_device(), dtype)
                 : dir_->load_stacked(w.name, w.global_shape[0], cpu_device(), dtype));
  if (host.shape() != w.global_shape)
    return fail(Code::kInvalidInput,
                "{}: tensor \"{}\" is {}, config.json asks for {}",
                dir_->path(),
                w.name,
                host.shape().str(),
                w.global_shape.str());
  w.value = host;
  if (device.kind() != DeviceKind::kCpu) {
    w.value = Tensor::empty(host.shape(), dtype, device);
    w.value.copy_bytes_from(host.data());
    std::vector<std::byte> back(host.bytes());
    w.value.copy_bytes_to(back.data());
    if (std::memcmp(back.data(), host.data(), back.size()) != 0) altered_.push_back(w.name);
  }
  w.packed.reset();
  w.changed();
  return {};
}

void LayerWeights::enter(int layer) {
  for (const Place& p : places_) {
    const bool used = std::find(p.layers.begin(), p.layers.end(), layer) != p.layers.end();
    if (used && !p.weight->value.defined()) {
      if (Result<void> loaded = load(*p.weight); !loaded)
        throw LoadFailed{std::move(loaded).error()};
    } else if (!used && !options_.keep && p.weight->value.defined()) {
      p.weight->value = {};
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
