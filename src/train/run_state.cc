#include "train/run_state.h"

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>

#include "base/file.h"
#include "base/hash.h"
#include "base/json_fields.h"
#include "base/shell.h"
#include "checkpoint/convert.h"
#include "checkpoint/weights.h"
#include "device/cpu/cpu_device.h"
#include "train/model_setup.h"

namespace ferry {
namespace {

constexpr const char* kReferenceLogProbs = "reference_log_probs";

bool stores_masters(const Settings& s) { return s.checkpoint.weights != "f32"; }

std::string token_text(const RunData& data, int32_t id) {
  return std::string(data.tokenizer->token_bytes(id));
}

/// The hash of what a file holds of the tensor.
Result<Digest> stored_hash(const Tensor& tensor, DType stored) {
  Hasher hash;
  TRY(for_each_piece(tensor, stored, [&](std::span<const std::byte> piece) -> Result<void> {
    hash.update(piece.data(), piece.size());
    return {};
  }));
  return hash.digest();
}

/// The master copy, which nobody signs, in place of the weight that it was stored as, which a
/// passport vouches for: it must be what that one was rounded from.
Result<void> restore_master(Weight& w, TrainingStateReader& reader, const std::string& path) {
  const std::string name = "master." + w.name;
  const StateTensor* info = reader.info(name);
  if (info == nullptr || info->shape != w.value.shape() || info->dtype != w.value.dtype())
    return fail(Code::kCorrupt,
                "{}: the training state has no \"{}\" {}",
                path,
                printable(name),
                w.value.shape().str());
  TRY_ASSIGN(Tensor master, reader.load(name, w.value.device()));
  const DType stored = w.matrix() ? DType::kBF16 : DType::kF32;
  TRY_ASSIGN(const Digest rounded, stored_hash(master, stored));
  TRY_ASSIGN(const Digest weight, stored_hash(w.value, stored));
  if (rounded != weight)
    return fail(
        Code::kCorrupt,
        "{}: \"{}\" of the training state does not round to the model's weight: they are not "
        "of one checkpoint",
        path,
        printable(name));
  w.store(std::move(master));
  return {};
}

/// Nothing, of a run that met none.
void put(nlohmann::ordered_json& document, const Spike& spike) {
  if (spike.since == 0) return;
  document["spike_since"] = spike.since;
  if (std::isfinite(spike.line)) document["spike_line"] = spike.line;
  document["spike_from"] = spike.from;
}

void put(nlohmann::ordered_json& document, const Rewinds& r) {
  if (r.count == 0) return;
  document["rewinds"] = r.count;
  document["rewound_to"] = r.to;
  document["rewound_furthest"] = r.furthest;
  document["rewinds_there"] = r.there;
  document["skipped_tokens"] = r.skipped_tokens;
  document["rewound"] = r.places;
}

Spike read_spike(JsonFields& f, int64_t step) {
  Spike spike;
  if (!f.has("spike_since")) return spike;
  spike.since = f.integer("spike_since", 1, std::max<int64_t>(step, 1));
  if (f.has("spike_line")) spike.line = f.real("spike_line");
  spike.from = f.integer("spike_from", 0, kRunTokensMax, 0);
  return spike;
}

Rewinds read_rewinds(JsonFields& f, int64_t step) {
  Rewinds r;
  r.count = f.integer("rewinds", 0, kRunTokensMax, 0);
  if (r.count == 0) return r;
  r.to = f.integer("rewound_to", 1, std::max<int64_t>(step, 1));
  r.furthest = f.integer("rewound_furthest", r.to, kRunTokensMax, r.to);
  r.there = f.integer("rewinds_there", 1, r.count);
  r.skipped_tokens = f.integer("skipped_tokens", 0, kRunTokensMax);
  if (f.has("rewound")) r.places = f.integers("rewound", 1, kRunTokensMax);
  return r;
}

}  // namespace

ModelContents model_contents(models::CausalLm& model,
                             const ModelTexts* texts,
                             const RunData& data,
                             const Settings& settings) {
  ModelContents c;
  const DType matrices = stored_matrices_of(settings.checkpoint);
  c.tensors = stored_weights(model.weights(), model.weight_aliases(), matrices);
  c.texts = model_text_files({.tokenizer_json = data.tokenizer_json,
                              .puts_bos = data.tokenizer->first_token() == data.bos,
                              .bos = data.bos,
                              .eos = data.eos,
                              .bos_text = token_text(data, data.bos),
                              .eos_text = token_text(data, data.eos),
                              .chat_template = settings.checkpoint.chat_template_text.value_or(""),
                              .positions = model.max_positions(),
                              .as_before = data.asked_as_before},
                             texts);
  c.texts[kConfigName] = model.config_json(matrices == DType::kF32 ? "float32" : "bfloat16");
  return c;
}

ModelContents adapter_contents(const TrainedAdapter& adapter) {
  ModelContents c;
  c.tensors = adapter.tensors();
  c.texts[kAdapterConfigName] = to_json(adapter.config());
  c.shard_bytes = std::numeric_limits<uint64_t>::max();  // PEFT knows of no shards
  return c;
}

TrainingStateContents state_contents(models::CausalLm& model,
                                     const Optimizer& optimizer,
                                     const RunState& state,
                                     const RunData& data,
                                     const Settings& settings) {
  nlohmann::ordered_json document;
  document["step"] = state.step;
  document["tokens"] = state.tokens;
  document["numerics"] = kNumerics;
  document["refused"] = state.refused;
  document["seconds"] = state.seconds;
  if (state.held_out_loss) document["held_out_loss"] = *state.held_out_loss;
  document["optimizer_steps"] = optimizer.steps();
  document["data"] = data.fingerprint;
  if (!data.held_out_fingerprint.empty()) document["held_out"] = data.held_out_fingerprint;
  if (!data.program_fingerprint.empty()) document["program"] = data.program_fingerprint;
  document["loss_window"] = state.loss_z.values();
  document["norm_window"] = state.norm_z.values();
  put(document, state.spike);
  put(document, state.rewinds);
  if (!state.anticipated.empty()) document["anticipated"] = size_of(state.anticipated);
  document["devices"] = state.devices;
  if (state.position > 0) document["position"] = state.position;
  document["settings"] = print_settings(settings);
  // An adapter is stored without its base, which is to be the same when the run goes on.
  if (settings.lora.rank > 0) document["base_config"] = model.config_json("float32");
  TrainingStateContents c;
  c.document = json_text(document, 1);
  c.parts.emplace_back();
  optimizer.for_each_state([&](const std::string& name, const Tensor& t) {
    c.parts[0].push_back(StatePiece::whole(name, t));
  });
  put(state.anticipated, c.parts[0]);
  if (state.reference_log_probs.defined())
    c.parts[0].push_back(StatePiece::whole(kReferenceLogProbs, state.reference_log_probs));
  if (state.reference != nullptr)
    for (const Weight* w : state.reference->weights())
      c.parts[0].push_back(StatePiece::whole("reference." + w->name, w->value));
  if (stores_masters(settings))
    for (const Weight* w : model.weights())
      c.parts[0].push_back(StatePiece::whole("master." + w->name, w->value));
  return c;
}

Result<StateDocument> read_state_document(const std::string& text, const std::string& path) {
  TRY_ASSIGN(const nlohmann::json document, parse_json(text, path));
  JsonProblem problem;
  JsonFields f(document, path, problem);
  const int64_t numerics = f.integer("numerics", 0, INT_MAX);
  TRY(problem.done());
  if (numerics != kNumerics)
    return fail(Code::kInvalidInput,
                "{}: numerics {}, this version of Ferry computes numerics {}; go on with the "
                "version that wrote it",
                path,
                numerics,
                kNumerics);
  StateDocument d;
  d.data = f.text("data");
  const std::string toml = f.text("settings");
  d.state.step = f.integer("step", 0, kRunTokensMax);
  d.state.refused = f.integer("refused", 0, d.state.step);
  d.state.seconds = f.real("seconds", 0, 1e15);
  const std::vector<double> losses = f.reals("loss_window"), norms = f.reals("norm_window");
  if (losses.size() > ZScore::kWindow) f.refuse("loss_window", "is too long");
  if (norms.size() > ZScore::kWindow) f.refuse("norm_window", "is too long");
  if (f.has("held_out_loss")) d.state.held_out_loss = f.real("held_out_loss");
  if (f.has("devices")) d.state.devices = f.texts("devices");
  d.state.spike = read_spike(f, d.state.step);
  d.state.rewinds = read_rewinds(f, d.state.step);
  if (f.has("anticipated")) {
    const std::vector<int64_t> size = f.integers("anticipated", 1, kRunTokensMax);
    if (size.size() != 2)
      f.refuse("anticipated", "is not two numbers");
    else
      d.anticipated = {size[0], size[1]};
  }
  d.state.position = f.integer("position", 0, kRunTokensMax, 0);
  if (f.has("held_out")) d.held_out = f.text("held_out");
  if (f.has("program")) d.program = f.text("program");
  if (f.has("base_config")) d.base_config = f.text("base_config");
  TRY(problem.done());
  TRY_ASSIGN(d.settings, parse_stored_settings(toml, path));
  // A step of reinforcement learning may have several updates, and not always as many as now.
  const bool one_each = d.settings.rl.tasks.empty();
  d.updates = f.integer("optimizer_steps", 0, one_each ? d.state.step : kRunTokensMax);
  // Earlier runs counted steps alone, all of one size.
  int64_t counted = 0;
  if (!f.has("tokens") &&
      __builtin_mul_overflow(d.state.step, d.settings.train.tokens_per_step, &counted))
    f.refuse("step", "is beyond what a run may have");
  d.state.tokens = f.integer("tokens", 0, kRunTokensMax, std::min(counted, kRunTokensMax));
  TRY(problem.done());
  d.state.loss_z.restore(losses);
  d.state.norm_z.restore(norms);
  return d;
}

Result<Resumed> read_run(const CheckpointInfo& checkpoint, const RunData& data) {
  TRY_ASSIGN(TrainingStateReader reader, TrainingStateReader::open(checkpoint.path));
  TRY_ASSIGN(StateDocument document,
             read_state_document(reader.document(), join_path(checkpoint.path, kStateDocument)));
  Resumed r{.state = std::move(document.state),
            .updates = document.updates,
            .point = {.path = checkpoint.path,
                      .config_json = {},
                      .settings = std::move(document.settings)},
            .program = std::move(document.program),
            .anticipated = document.anticipated,
            .texts = {},
            .adapter = {},
            .reader = std::move(reader)};
  if (document.data != data.fingerprint)
    return fail(
        Code::kInvalidInput,
        "{}: the run was trained on other data than {}; give {} what it learnt from, or begin "
        "a new run from {} and another checkpoint.dir",
        checkpoint.path,
        data.place,
        data.setting,
        weights_to_begin_with(r.point));
  if (!document.held_out.empty() && document.held_out != data.held_out_fingerprint)
    return fail(Code::kInvalidInput,
                "{}: the run's score was measured on other held-out tasks, or on more or fewer of "
                "them, and two scores "
                "of one run are to be of the same; give rl.held_out and rl.evaluate_tasks what "
                "they were, or begin a "
                "new run from {} and another checkpoint.dir",
                checkpoint.path,
                weights_to_begin_with(r.point));
  if (r.point.settings.lora.rank > 0) {
    TRY_ASSIGN(r.adapter, Adapter::open(checkpoint.path));
    r.point.config_json = std::move(document.base_config);
  } else {
    TRY_ASSIGN(ModelDir dir, ModelDir::open(checkpoint.path));
    r.point.config_json = dir.config_json();
    TRY_ASSIGN(r.texts, read_model_texts(dir));
  }
  return r;
}

Result<void> restore(Resumed& from,
                     models::CausalLm& model,
                     TrainedAdapter* adapter,
                     Optimizer& optimizer) {
  const std::string& path = from.point.path;
  if (adapter != nullptr) {
    TRY(adapter->restore(*from.adapter));
  } else {
    TRY_ASSIGN(ModelDir dir, ModelDir::open(path));
    TRY(load_weights(dir, model.device(), model.weights(), model.weight_aliases()));
    if (stores_masters(from.point.settings))
      for (Weight* w : model.weights()) TRY(restore_master(*w, from.reader, path));
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
  TRY_ASSIGN(from.state.anticipated,
             read_routing(from.reader, from.anticipated, model.experts(), model.device(), path));
  return {};
}

Result<Tensor> restore_reference_log_probs(const std::string& checkpoint, int64_t answers) {
  TRY_ASSIGN(TrainingStateReader reader, TrainingStateReader::open(checkpoint));
  const StateTensor* info = reader.info(kReferenceLogProbs);
  if (info == nullptr || info->shape != Shape{answers} || info->dtype != DType::kF32)
    return fail(Code::kCorrupt,
                "{}: the training state has no \"{}\" of {} answers",
                checkpoint,
                kReferenceLogProbs,
                answers);
  return reader.load(kReferenceLogProbs, cpu_device());
}

Result<void> restore_reference(const std::string& checkpoint, models::CausalLm& reference) {
  TRY_ASSIGN(TrainingStateReader reader, TrainingStateReader::open(checkpoint));
  for (Weight* w : reference.weights()) {
    const std::string name = "reference." + w->name;
    const StateTensor* info = reader.info(name);
    if (info == nullptr || info->shape != w->value.shape() || info->dtype != w->value.dtype())
      return fail(Code::kInvalidInput,
                  "{}: the training state has no \"{}\" {}: it was written without rl.kl; begin a "
                  "new run from its weights",
                  checkpoint,
                  printable(name),
                  w->value.shape().str());
    TRY_ASSIGN(Tensor value, reader.load(name, reference.device()));
    w->store(std::move(value));
  }
  return {};
}

}  // namespace ferry
