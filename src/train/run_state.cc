#include "train/run_state.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "checkpoint/weights.h"

namespace ferry {
namespace {

using Json = nlohmann::ordered_json;

bool stores_masters(const Settings& s) { return s.checkpoint.weights != "f32"; }

std::string token_text(const data::Dataset& dataset, int32_t id) {
  return std::string(dataset.tokenizer().token_bytes(id));
}

Result<Json> parse_document(const std::string& text, const std::string& path) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) return fail(Code::kCorrupt, "{}: not a JSON object", path);
  return json;
}

template <typename T>
Result<T> field(const Json& json, const char* name, const std::string& path) {
  try {
    return json.at(name).get<T>();
  } catch (const Json::exception&) {
    return fail(Code::kCorrupt, "{}: \"{}\" is missing or of the wrong type", path, name);
  }
}

}  // namespace

ModelContents model_contents(models::CausalLm& model,
                             const ModelTexts* texts,
                             const data::Dataset& dataset,
                             const Settings& settings) {
  ModelContents c;
  const bool f32 = settings.checkpoint.weights == "f32";
  c.tensors =
      stored_weights(model.weights(), model.weight_aliases(), f32 ? DType::kF32 : DType::kBF16);
  const data::Manifest& m = dataset.manifest();
  c.texts = model_text_files({.tokenizer_json = dataset.tokenizer_json(),
                              .bos = m.bos,
                              .eos = m.eos,
                              .bos_text = token_text(dataset, m.bos),
                              .eos_text = token_text(dataset, m.eos),
                              .positions = model.max_positions()},
                             texts);
  c.texts[kConfigName] = model.config_json(f32 ? "float32" : "bfloat16");
  return c;
}

TrainingStateContents state_contents(models::CausalLm& model,
                                     const Optimizer& optimizer,
                                     const RunState& state,
                                     const data::Dataset& dataset,
                                     const Settings& settings) {
  Json document;
  document["step"] = state.step;
  document["tokens"] = state.tokens;
  document["numerics"] = kNumerics;
  document["refused"] = state.refused;
  document["seconds"] = state.seconds;
  if (state.held_out_loss) document["held_out_loss"] = *state.held_out_loss;
  document["optimizer_steps"] = optimizer.steps();
  document["data"] = dataset.manifest().fingerprint();
  document["loss_window"] = state.loss_z.values();
  document["norm_window"] = state.norm_z.values();
  document["devices"] = state.devices;
  document["settings"] = print_settings(settings);
  TrainingStateContents c;
  c.document = document.dump(1);
  c.parts.emplace_back();
  optimizer.for_each_state([&](const std::string& name, const Tensor& t) {
    c.parts[0].push_back(StatePiece::whole(name, t));
  });
  if (stores_masters(settings))
    for (const Weight* w : model.weights())
      c.parts[0].push_back(StatePiece::whole("master." + w->name, w->value));
  return c;
}

uint64_t checkpoint_bytes(models::CausalLm& model,
                          const ModelTexts* texts,
                          const Optimizer& optimizer,
                          const data::Dataset& dataset,
                          const Settings& settings) {
  return bytes_needed(model_contents(model, texts, dataset, settings)) +
         bytes_needed(state_contents(model, optimizer, {}, dataset, settings));
}

Result<Resumed> read_run(const CheckpointInfo& checkpoint, const data::Dataset& dataset) {
  const std::string path = join_path(checkpoint.path, kStateDocument);
  TRY_ASSIGN(TrainingStateReader reader, TrainingStateReader::open(checkpoint.path));
  TRY_ASSIGN(const Json document, parse_document(reader.document(), path));
  TRY_ASSIGN(const int numerics, field<int>(document, "numerics", path));
  if (numerics != kNumerics)
    return fail(Code::kInvalidInput,
                "{}: numerics {}, this version of Ferry computes numerics {}; go on with the "
                "version that wrote it",
                path,
                numerics,
                kNumerics);
  TRY_ASSIGN(const std::string data, field<std::string>(document, "data", path));
  if (data != dataset.manifest().fingerprint())
    return fail(
        Code::kInvalidInput,
        "{}: the run was trained on other data than {}; give data.dir its dataset, or begin "
        "a new run from this one with model.init={}",
        checkpoint.path,
        dataset.folder(),
        checkpoint.path);
  Resumed r{
      .state = {}, .point = {.path = checkpoint.path}, .texts = {}, .reader = std::move(reader)};
  TRY_ASSIGN(const std::string toml, field<std::string>(document, "settings", path));
  TRY_ASSIGN(r.point.settings, parse_settings(toml, path));
  TRY_ASSIGN(ModelDir dir, ModelDir::open(checkpoint.path));
  r.point.config_json = dir.config_json();
  TRY_ASSIGN(r.texts, read_model_texts(dir));
  TRY_ASSIGN(r.state.step, field<int64_t>(document, "step", path));
  TRY_ASSIGN(r.state.refused, field<int64_t>(document, "refused", path));
  TRY_ASSIGN(r.state.seconds, field<double>(document, "seconds", path));
  TRY_ASSIGN(r.updates, field<int64_t>(document, "optimizer_steps", path));
  if (document.contains("tokens")) {
    TRY_ASSIGN(r.state.tokens, field<int64_t>(document, "tokens", path));
  } else if (__builtin_mul_overflow(  // earlier runs counted steps alone, all of one size
                 r.state.step,
                 r.point.settings.train.tokens_per_step,
                 &r.state.tokens)) {
    r.state.tokens = -1;
  }
  if (r.state.step < 0 || r.state.tokens < 0 || r.state.tokens > kRunTokensMax)
    return fail(Code::kCorrupt, "{}: \"step\" {} or \"tokens\" cannot be", path, r.state.step);
  TRY_ASSIGN(const std::vector<double> losses,
             field<std::vector<double>>(document, "loss_window", path));
  TRY_ASSIGN(const std::vector<double> norms,
             field<std::vector<double>>(document, "norm_window", path));
  if (document.contains("devices")) {
    TRY_ASSIGN(r.state.devices, field<std::vector<std::string>>(document, "devices", path));
  }
  r.state.loss_z.restore(losses);
  r.state.norm_z.restore(norms);
  r.state.held_out_loss = checkpoint.held_out_loss;
  return r;
}

Result<void> restore(Resumed& from, models::CausalLm& model, Optimizer& optimizer) {
  const std::string& path = from.point.path;
  TRY_ASSIGN(ModelDir dir, ModelDir::open(path));
  TRY(load_weights(dir, model.device(), model.weights(), model.weight_aliases()));
  if (stores_masters(from.point.settings))
    for (Weight* w : model.weights()) {
      TRY_ASSIGN(w->value, from.reader.load("master." + w->name, w->value.device()));
      w->changed();
    }
  Result<void> loaded;
  optimizer.for_each_state([&](const std::string& name, const Tensor& state) {
    if (!loaded) return;
    const StateTensor* info = from.reader.info(name);
    if (info == nullptr || info->shape != state.shape() || info->dtype != state.dtype()) {
      loaded =
          fail(Code::kInvalidInput,
               "{}: the optimizer's \"{}\" {} is not there; the run had another optimizer or model",
               path,
               name,
               state.shape().str());
      return;
    }
    const Result<Tensor> stored = from.reader.load(name, state.device());
    if (!stored)
      loaded = tl::unexpected(stored.error());
    else
      state.device().copy(state.data(), stored->data(), state.bytes());
  });
  TRY(loaded);
  optimizer.set_steps(from.updates);
  return {};
}

}  // namespace ferry
