#include "train/run_passport.h"

#include "base/version.h"
#include "checkpoint/convert.h"
#include "device/cpu/cpu_device.h"
#include "models/registry.h"
#include "probe/probe.h"

namespace ferry {
namespace {

std::vector<probe::Prompt> prompts_of(const models::CausalLm& model, const RunData& data) {
  std::vector<probe::Prompt> prompts = probe::synthetic_prompts(model);
  for (const std::vector<int32_t>& text : data.held_out) {
    probe::Prompt prompt{fmt::format("held out {}", &text - data.held_out.data() + 1), text};
    const auto most = static_cast<size_t>(model.max_positions() - 1);
    if (text.size() > most) prompt.tokens.resize(most);
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

/// The weights as they will be read: on the CPU, rounded to the type that they are stored in.
Tensor as_stored(const Tensor& value, DType stored) {
  Tensor host = Tensor::empty(value.shape(), value.dtype(), cpu_device());
  value.copy_bytes_to(host.data());
  if (stored == value.dtype()) return host;
  Tensor narrow = Tensor::empty(value.shape(), stored, cpu_device());
  const auto bytes = [](const Tensor& t) {
    return std::span(static_cast<const std::byte*>(t.data()), t.bytes());
  };
  fill_from(narrow, host.dtype(), bytes(host));
  fill_from(host, stored, bytes(narrow));
  return host;
}

Result<Probes> probes_of(models::CausalLm& model, const RunData& data, const Settings& settings) {
  const DType stored = settings.checkpoint.weights == "f32" ? DType::kF32 : DType::kBF16;
  const DType other_type = model.compute() == DType::kF32 ? DType::kBF16 : DType::kF32;
  models::CausalLm* reference = &model;
  std::unique_ptr<models::CausalLm> copy;
  // Computing in bf16 rounds the weights as storing does; otherwise, or elsewhere, they are copied.
  if (model.device().kind() != DeviceKind::kCpu ||
      (stored != DType::kF32 && model.compute() == DType::kF32)) {
    TRY_ASSIGN(copy,
               models::make_model(model.config_json("float32"),
                                  "the run's model",
                                  cpu_device(),
                                  model.compute(),
                                  std::nullopt));
    const std::vector<Weight*> from = model.weights(), to = copy->weights();
    for (size_t i = 0; i < from.size(); ++i)
      to[i]->value = as_stored(from[i]->value, from[i]->matrix() ? stored : DType::kF32);
    reference = copy.get();
  }
  TRY_ASSIGN(const std::unique_ptr<models::CausalLm> other, probe::sibling(*reference, other_type));
  Probes probes = probe::record(*reference, *other, prompts_of(model, data), {});
  // Weights that are trained change with the next step: what was packed for the texts is of no use.
  for (Weight* w : model.weights()) w->packed.reset();
  return probes;
}

}  // namespace

Result<std::optional<KeyPair>> signing_key(const CheckpointSettings& settings) {
  if (settings.key.empty()) return std::nullopt;
  TRY_ASSIGN(
      KeyPair key,
      settings.secret_key ? key_pair_of(*settings.secret_key) : read_secret_key(settings.key));
  return key;
}

Result<void> add_passport(ModelContents& contents,
                          models::CausalLm& model,
                          const TrainedAdapter* adapter,
                          const RunState& state,
                          const RunData& data,
                          const Settings& settings) {
  TRY_ASSIGN(contents.key, signing_key(settings.checkpoint));
  Passport passport;
  passport.program = fmt::format("ferry {}", kVersion);
  passport.training = PassportTraining{.steps = state.step,
                                       .tokens = state.tokens,
                                       .skipped_tokens = state.rewinds.skipped_tokens,
                                       .data = data.fingerprint,
                                       .settings = print_settings(settings),
                                       .devices = state.devices,
                                       .mla_form = settings.train.mla_form,
                                       .held_out_loss = state.held_out_loss};
  if (adapter != nullptr) {
    passport.base = adapter->base().root;
    passport.base_vocabulary = adapter->base().vocabulary;
  }
  TRY_ASSIGN(passport.probes, probes_of(model, data, settings));
  // The CPU gave the answers: on it, the directory needs no other proof of them.
  contents.verified = {{.device = verified_as(cpu_device()),
                        .dtype = passport.probes.dtype,
                        .passed = true,
                        .program = passport.program}};
  contents.passport = std::move(passport);
  return {};
}

}  // namespace ferry
