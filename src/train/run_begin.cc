#include "train/run_begin.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/file.h"
#include "base/system.h"
#include "checkpoint/checksums.h"
#include "checkpoint/staged_folder.h"
#include "checkpoint/undone_checkpoints.h"
#include "models/registry.h"
#include "train/curve.h"
#include "train/model_setup.h"
#include "train/run_status.h"

namespace ferry {
namespace {

using supervisor::Work;

/// Every byte of it, and what its passport says.
bool is_whole(const std::string& path) {
  if (path_exists(join_path(path, kAdapterConfigName))) {
    Result<Checksums> sums = Checksums::open(path);
    return sums && sums->check_all() && Adapter::open(path);
  }
  Result<ModelDir> dir = ModelDir::open(path);
  return dir && dir->verify();
}

/// For the message that the newest checkpoint cannot be used: the next older one that can, every
/// byte of it checked.
std::string older_whole(const CheckpointList& list) {
  for (size_t i = list.complete.size() - 1; i-- > 0;) {
    const std::string& path = list.complete[i].path;
    if (is_whole(path))
      return fmt::format(". {} (step {}) is whole: move {} away, and --resume goes on from there",
                         path,
                         list.complete[i].step,
                         list.complete.back().path);
  }
  return "";
}

/// Step folders that cannot be used are a run's all the same, whose files may come back.
Result<void> check_ignored(const std::string& folder, const CheckpointList& list) {
  if (list.complete.empty() && !list.ignored.empty())
    return fail(
        Code::kCorrupt,
        "{}: none of its checkpoints ({}) can be gone on from ({}); restore what is missing "
        "or harmed and go on by --resume, or begin anew in another checkpoint.dir",
        folder,
        list.ignored.size(),
        list.ignored.back().why);
  // Those that are older will not be written again.
  for (const IgnoredCheckpoint& i : list.ignored)
    if (i.step > list.complete.back().step) {
      if (i.state_left_out)
        return fail(Code::kInvalidInput,
                    "{}: is kept without its training state (the folder state/), and would be lost "
                    "when step {} is saved: move it away, and --resume goes on from step {}; or "
                    "put the folder back from a copy",
                    i.path,
                    i.step,
                    list.complete.back().step);
      if (const Result<void> free = check_replaceable(i.path); !free)
        return fail(free.error().code,
                    "{}: cannot be gone on from, and would be in the way when step {} is saved: "
                    "move it away ({})",
                    i.path,
                    i.step,
                    free.error().message);
    }
  return {};
}

/// A run that has set checkpoints aside has the one that it went back to: where there is none, they are another run's,
/// and saves of this one would remove them.
Result<void> check_nothing_undone(const std::string& folder) {
  TRY_ASSIGN(const bool undone, has_undone(folder));
  if (!undone) return {};
  return fail(
      Code::kInvalidInput,
      "{}: holds checkpoints that another run has set aside, and {} has none to go on from: "
      "move that folder away, or choose another checkpoint.dir",
      join_path(folder, kUndoneFolder),
      folder);
}

/// A worker that begins again before the first checkpoint must begin with the same model.
Result<void> check_init_state(const ModelSettings& model) {
  if (!model.init_state) return {};
  TRY_ASSIGN(const std::string now, state_of_init(model.init));
  if (now == *model.init_state) return {};
  return fail(Code::kInvalidInput,
              "model.init {}: was changed since this run began, which has no checkpoint yet to go "
              "on from: begin again with the model as it is now",
              model.init);
}

std::vector<Weight*> trained_of(Beginning& b) {
  return b.adapter ? b.adapter->factors() : b.model->weights();
}

std::optional<text::VocabularyId> vocabulary_of(const InitModel& init) {
  if (init.texts.tokenizer == nullptr) return std::nullopt;
  return init.texts.tokenizer->vocabulary();
}

/// The adapter that the settings ask for, of a model that holds the weights of `init`.
Result<std::unique_ptr<TrainedAdapter>> adapter_of(const Settings& settings,
                                                   const InitModel& init,
                                                   models::TrainableLm& model) {
  TRY_ASSIGN(std::string root, init.source->weights_root({}));
  TRY_ASSIGN(TrainedAdapter adapter,
             TrainedAdapter::create({.rank = settings.lora.rank,
                                     .alpha = settings.lora.alpha,
                                     .rslora = settings.lora.use_rslora,
                                     .targets = lora_targets(settings.lora),
                                     .base = settings.model.init},
                                    {.root = std::move(root), .vocabulary = vocabulary_of(init)},
                                    model.weights(),
                                    model.blocks(),
                                    static_cast<uint64_t>(settings.train.seed)));
  for (const std::string& weight : adapter.adapted_names())
    TRY(check_adaptable(*init.source, weight, "lora.target_modules"));
  return std::make_unique<TrainedAdapter>(std::move(adapter));
}

/// What comes of it is asked as its base is, which must stop where the data does.
Result<void> check_ends(const Settings& settings, const InitModel& init, const RunData& data) {
  const auto& eos = init.texts.eos;
  if (data.asked_as_before || std::find(eos.begin(), eos.end(), data.eos) != eos.end()) return {};
  return fail(
      Code::kInvalidInput,
      "lora.rank {}: the texts of {} end with token {}, at which {} does not stop, and an adapter "
      "cannot say that it should; name it as eos_token_id in that model's config.json",
      settings.lora.rank,
      data.place,
      data.eos,
      init.source->path());
}

Result<Beginning> fresh(const Settings& settings,
                        const RunData& data,
                        Device& device,
                        const std::function<void(const std::string&)>& say,
                        const RankPlace& place) {
  Beginning b;
  const bool chat = !data.chat_template_blake2b.empty();
  if (settings.dpo.pairs.empty() && settings.data.format == (chat ? "text" : "chat"))
    return fail(
        Code::kInvalidInput,
        "data.format {}: {} holds {}",
        settings.data.format,
        data.place,
        chat ? "conversations (chat)" : "text; prepare conversations with --chat MODEL_DIR");
  if (chat && settings.model.init.empty())
    return fail(
        Code::kInvalidInput,
        "data.dir {}: holds conversations; model.init must name the model that goes on from "
        "them, by whose chat template they are written",
        data.place);
  if (chat && !settings.checkpoint.chat_template.empty())
    return fail(Code::kInvalidInput,
                "checkpoint.chat_template {}: the conversations of {} are written by model.init's "
                "template, and the model is to be asked by that; leave it out",
                settings.checkpoint.chat_template,
                data.place);
  std::optional<InitModel> init;
  if (!settings.model.init.empty()) {
    TRY_ASSIGN(init, InitModel::open(settings.model.init));
    TRY(check_init_state(settings.model));
    TRY(init->check_data(data));
    for (const std::string& n : init->notes(data)) say("note       " + n);
  }
  InitModel* const from = init ? &*init : nullptr;
  TRY_ASSIGN(const std::string config,
             resolve_config(settings.model, from, data, settings.data.sequence_length));
  TRY_ASSIGN(b.model, make_training_model(settings, from, config, device));
  if (settings.lora.rank > 0) {
    TRY(check_ends(settings, *init, data));
    TRY_ASSIGN(b.adapter, adapter_of(settings, *init, *b.model));
  }
  if (init) b.texts = std::move(init->texts);
  b.optimizer = optimizer_at(place, optimizer_of(settings), trained_of(b));
  return b;
}

Result<Beginning> going_on(const Settings& settings,
                           const CheckpointInfo& newest,
                           const RunData& data,
                           Resumed& from,
                           Device& device,
                           const std::function<void(const std::string&)>& say,
                           const RankPlace& place) {
  Beginning b;
  if (from.adapter) {
    TRY_ASSIGN(InitModel init, InitModel::open(settings.model.init));
    TRY(from.adapter->check_fits(*init.source));
    std::vector<std::string> notes;
    TRY(init.check_data(data, &notes));
    for (const std::string& n : notes) say("note       " + n);
    TRY_ASSIGN(const std::string config,
               resolve_config(settings.model, &init, data, settings.data.sequence_length));
    TRY_ASSIGN(b.model, make_training_model(settings, &init, config, device));
    if (!from.point.config_json.empty() &&
        b.model->config_json("float32") != from.point.config_json)
      return fail(Code::kInvalidInput,
                  "model.init {}: its config.json describes another model than when {} was saved, "
                  "and an adapter goes on with its base as it was: give it back",
                  settings.model.init,
                  newest.path);
    TRY_ASSIGN(b.adapter, adapter_of(settings, init, *b.model));
    b.texts = std::move(init.texts);
  } else {
    TRY_ASSIGN(
        b.model,
        models::make_model(
            from.point.config_json, newest.path, device, compute_of(settings.train), DType::kF32));
    b.texts = std::move(from.texts);
  }
  b.optimizer = optimizer_at(place, optimizer_of(settings), trained_of(b));
  TRY(restore(from, *b.model, b.adapter.get(), *b.optimizer));
  b.state = from.state;
  b.saved_step = b.state.step;
  return b;
}

}  // namespace

Result<void> remove_run_leftovers(const std::string& folder) {
  constexpr std::string_view kMark = ".tmp.";
  const std::string supervisors = fmt::format("{}.", ::getppid());  // may be writing just now
  const auto sweep = [&](const std::string& in, auto&& ours) -> Result<void> {
    TRY_ASSIGN(const std::vector<std::string> names, list_folder(in));
    for (const std::string_view name : names) {
      const size_t mark = name.find(kMark);
      if (mark != std::string_view::npos && ours(name.substr(0, mark)) &&
          is_process_and_serial(name.substr(mark + kMark.size())) &&
          !name.substr(mark + kMark.size()).starts_with(supervisors))
        TRY(remove_tree(join_path(in, std::string(name))));
    }
    return {};
  };
  TRY(sweep(folder, [](std::string_view of) {
    return of == "metrics.jsonl" || of == kUndoneName || of == kCurveName || of == kRunStatusName;
  }));
  const std::string samples = join_path(folder, kSamplesFolder);
  TRY_ASSIGN(const bool there, is_there(samples));
  if (!there) return {};
  return sweep(samples,
               [](std::string_view of) { return of.starts_with("step-") && of.ends_with(".txt"); });
}

Result<Beginning> begin_run(const Settings& settings,
                            bool resume,
                            const RunData& data,
                            Device& device,
                            Beats& beats,
                            const std::function<void(const std::string&)>& say,
                            const RankPlace& place) {
  const std::string& folder = settings.checkpoint.dir;
  beats.begin(Work::kLoading);
  TRY_ASSIGN(const CheckpointList list, list_checkpoints(folder));
  for (const IgnoredCheckpoint& i : list.ignored) say("ignored    " + i.why);
  for (const CheckpointInfo& c : list.undone)
    say("ignored    " + c.path + ": was undone, and is to be set aside yet");
  if (!resume && !list.complete.empty())
    return fail(Code::kInvalidInput,
                "{}: holds a run that got to step {}; go on with it by --resume, or choose another "
                "checkpoint.dir",
                folder,
                list.complete.back().step);
  TRY(check_ignored(folder, list));
  if (list.complete.empty()) TRY(check_nothing_undone(folder));
  Beginning b;
  if (list.complete.empty()) {
    if (resume)
      say(fmt::format("resume     {}: no checkpoint yet: from the beginning",
                      std::filesystem::absolute(folder).string()));
    TRY_ASSIGN(b, fresh(settings, data, device, say, place));
  } else {
    const CheckpointInfo& newest = list.complete.back();
    Result<Resumed> read = read_run(newest, data);
    const auto damaged = [&list](const Status& why) {
      return fail(
          why.code, "{}{}", why.message, why.code == Code::kCorrupt ? older_whole(list) : "");
    };
    if (!read) return damaged(read.error());
    Resumed from = *std::move(read);
    // Refused before anything large is made: a setting is no harm to the checkpoint.
    TRY_ASSIGN(const std::vector<SettingChange> changes,
               changes_on_resume(from.point, settings, data));
    Result<Beginning> resumed = going_on(settings, newest, data, from, device, say, place);
    if (!resumed) return damaged(resumed.error());
    b = *std::move(resumed);
    say(fmt::format("resume     from {} (step {})", newest.path, b.state.step));
    for (const SettingChange& c : changes)
      say(fmt::format("changed    {}: {} -> {}", c.key, c.was, c.now));
    if (!from.program.empty() && from.program != data.program_fingerprint)
      say("changed    rl.program_folder: what it holds; an answer may be worth something else than "
          "it was");
  }
  const std::string here = device.kind() == DeviceKind::kCpu
                               ? fmt::format("cpu, {}", processor_name())
                               : device.describe();
  if (std::find(b.state.devices.begin(), b.state.devices.end(), here) == b.state.devices.end()) {
    // A CPU gives the bits of any other; of chips one may add in another order than the last (docs/numerics.md).
    if (!b.state.devices.empty() && device.kind() != DeviceKind::kCpu)
      say(fmt::format("changed    the chip: {} -> {}", b.state.devices.back(), here));
    b.state.devices.push_back(here);
  }
  const bool sequences = settings.rl.tasks.empty();  // or tasks, whose lengths others look at
  if (sequences && settings.data.sequence_length > b.model->max_positions())
    return fail(Code::kInvalidInput,
                "data.sequence_length {}: the model has {} positions (max_position_embeddings)",
                settings.data.sequence_length,
                b.model->max_positions());
  return b;
}

Result<Beginning> begin_in_place(const Settings& settings,
                                 const RunData& data,
                                 Device& device,
                                 ModelWord model,
                                 const RankPlace& place) {
  Beginning b;
  if (settings.lora.rank > 0) {
    TRY_ASSIGN(InitModel init, InitModel::open(settings.model.init));
    TRY_ASSIGN(const std::string config,
               resolve_config(settings.model, &init, data, settings.data.sequence_length));
    TRY_ASSIGN(b.model, make_training_model(settings, &init, config, device));
    if (b.model->config_json("float32") != model.config_json)
      return fail(Code::kInvalidInput,
                  "model.init {}: its config.json describes another model than when the run began",
                  settings.model.init);
    TRY_ASSIGN(b.adapter, adapter_of(settings, init, *b.model));
    b.texts = std::move(init.texts);
  } else {
    TRY_ASSIGN(
        b.model,
        models::make_model(
            model.config_json, "the run's model", device, compute_of(settings.train), DType::kF32));
    b.texts = std::move(model.texts);
  }
  b.optimizer = optimizer_at(place, optimizer_of(settings), trained_of(b));
  return b;
}

}  // namespace ferry
