#include "train/run_save.h"

#include "base/clock.h"
#include "base/counted.h"
#include "base/file.h"
#include "base/os_error.h"
#include "base/units.h"
#include "checkpoint/undone_checkpoints.h"
#include "train/curve.h"
#include "train/run_passport.h"

namespace ferry {
namespace {

using supervisor::Work;

Result<void> draw_curve(const Settings& settings,
                        const RunState& state,
                        int64_t parameters,
                        const Metrics& metrics) {
  const bool rewards = !settings.rl.tasks.empty(), pairs = !settings.dpo.pairs.empty();
  const CurveOptions curve{.title = rewards ? "Reward" : "Training loss",
                           .axis = rewards ? "reward; held out: share solved"
                                   : pairs ? "loss of a pair"
                                           : "loss, nats per token",
                           .subtitle = fmt::format("{} parameters, {} tokens",
                                                   format_count(static_cast<double>(parameters)),
                                                   format_count(static_cast<double>(state.tokens))),
                           .steps = settings.train.steps};
  return write_file_atomic(join_path(settings.checkpoint.dir, kCurveName),
                           loss_curve_svg(metrics, curve));
}

KeepRules rules_of(const Settings& settings) {
  return {.keep_last = static_cast<int>(settings.checkpoint.keep_last),
          .keep_best = settings.checkpoint.keep_best ? 1 : 0};
}

/// Of what the run has set aside as many are kept as of its own. `say` is told what becomes of the others: nobody else
/// would know.
Result<void> prune_aside(const Settings& settings,
                         const std::function<void(const std::string&)>& say) {
  if (!settings.rl.tasks.empty()) return {};  // which never goes back
  const std::string& folder = settings.checkpoint.dir;
  TRY_ASSIGN(const std::vector<std::string> removed, prune_undone(folder, rules_of(settings)));
  if (!removed.empty())
    say(
        fmt::format("removed    {} of undone steps: of those in {} checkpoint.keep_last ({}) and "
                    "checkpoint.keep_best stay",
                    counted(std::ssize(removed), "checkpoint", "checkpoints"),
                    join_path(folder, kUndoneFolder),
                    settings.checkpoint.keep_last));
  return {};
}

/// Removes what is not to be kept, and is not what the run would go back to if its loss spiked.
Result<void> prune(const RunState& state, const Settings& settings) {
  const std::string& folder = settings.checkpoint.dir;
  KeepRules keep = rules_of(settings);
  TRY_ASSIGN(const CheckpointList there, list_checkpoints(folder));
  std::vector<int64_t> steps;
  for (const CheckpointInfo& c : there.complete) steps.push_back(c.step);
  if (settings.train.rewind_every > 0)
    if (const auto places = places_before(state.spike, state.step, steps, settings.train);
        !places.empty())
      keep.keep_step = places.front();
  return prune_checkpoints(folder, keep).map([](const auto&) {});
}

/// Until the disk seems to have room again; where it does not say so (a quota, inodes, another run that is as quick),
/// and where it cannot be asked, for a while; or until nobody waits any longer.
void wait_for_room(const std::string& folder,
                   uint64_t needed,
                   Beats& beats,
                   const std::function<bool()>& keep_waiting) {
  constexpr double kTryAnywayS = 30, kNotAtOnceS = 1;
  beats.begin(Work::kNoRoom);
  const double begin = system_clock().monotonic_s();
  while (keep_waiting()) {
    sleep_s(kNotAtOnceS);
    beats.advance(0);
    const Result<uint64_t> available = free_disk_bytes(folder);
    if (available && *available >= needed + needed / 50) return;
    if (system_clock().monotonic_s() - begin >= kTryAnywayS) return;
  }
}

}  // namespace

Result<Saved> save_run(models::CausalLm& model,
                       const ModelTexts* texts,
                       const TrainedAdapter* adapter,
                       const Optimizer& optimizer,
                       const RunState& state,
                       const RunData& data,
                       const Settings& settings,
                       const Metrics& metrics,
                       Beats& beats,
                       Progress& progress,
                       const std::function<bool()>& keep_waiting) {
  const double begin_s = system_clock().monotonic_s();
  const std::string& folder = settings.checkpoint.dir;
  beats.begin(Work::kProbing);
  ModelContents contents = adapter != nullptr ? adapter_contents(*adapter)
                                              : model_contents(model, texts, data, settings);
  {
    const OpsAlive alive;
    TRY(add_passport(contents, model, adapter, state, data, settings));
  }
  const TrainingStateContents stored = state_contents(model, optimizer, state, data, settings);
  // Each byte is written and hashed; the model's are hashed a second time, as the passport's leaves.
  const uint64_t model_bytes = bytes_needed(contents), state_bytes = bytes_needed(stored);
  const auto save = [&] {
    beats.begin(Work::kWriting, static_cast<int64_t>(3 * model_bytes + 2 * state_bytes));
    return save_checkpoint(folder, state.step, contents, stored);
  };
  const uint64_t room = model_bytes + state_bytes;
  Result<SaveReport> saved = save();
  for (bool told = false; !saved; saved = save()) {
    if (!is_no_room(saved.error()) || (keep_waiting && !keep_waiting()))
      return tl::unexpected(saved.error());
    if (!keep_waiting) {
      beats.begin(Work::kNoRoom);
      progress.note(
          fmt::format("warning    step {} is not saved: {}. The run goes on, and tries again when "
                      "the next checkpoint is due",
                      state.step,
                      saved.error().message));
      return Saved::kNoRoom;
    }
    if (!told)
      progress.note(fmt::format(
          "waiting    step {} is not saved yet: {}. It is kept in memory, and saved once there is "
          "room; a signal to stop gives it up",
          state.step,
          saved.error().message));
    told = true;
    wait_for_room(folder, room, beats, keep_waiting);
    if (!keep_waiting()) return tl::unexpected(saved.error());
  }
  SaveReport report = *std::move(saved);
  const auto warn = [&report](const auto& result) {
    if (!result) report.warnings.push_back(result.error().message);
  };
  beats.begin(Work::kRemoving);
  warn(prune(state, settings));
  warn(prune_aside(settings, [&](const std::string& text) { progress.note(text); }));
  if (settings.log.curve) warn(draw_curve(settings, state, model.parameters_total(), metrics));
  progress.note(fmt::format("saved      {} ({}, {})",
                            report.path,
                            format_bytes(static_cast<double>(report.bytes)),
                            format_duration(system_clock().monotonic_s() - begin_s)));
  for (const std::string& w : report.warnings) progress.note("warning    " + w);
  return Saved::kWhole;
}

}  // namespace ferry
