#include "train/run_save.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/units.h"
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

}  // namespace

Result<void> save_run(models::CausalLm& model,
                      const ModelTexts* texts,
                      const TrainedAdapter* adapter,
                      const Optimizer& optimizer,
                      const RunState& state,
                      const RunData& data,
                      const Settings& settings,
                      const Metrics& metrics,
                      Beats& beats,
                      Progress& progress) {
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
  beats.begin(Work::kWriting,
              static_cast<int64_t>(3 * bytes_needed(contents) + 2 * bytes_needed(stored)));
  TRY_ASSIGN(SaveReport report, save_checkpoint(folder, state.step, contents, stored));
  const auto warn = [&report](const auto& result) {
    if (!result) report.warnings.push_back(result.error().message);
  };
  beats.begin(Work::kRemoving);
  warn(prune_checkpoints(folder,
                         {.keep_last = static_cast<int>(settings.checkpoint.keep_last),
                          .keep_best = settings.checkpoint.keep_best ? 1 : 0}));
  if (settings.log.curve) warn(draw_curve(settings, state, model.parameters_total(), metrics));
  progress.note(fmt::format("saved      {} ({}, {})",
                            report.path,
                            format_bytes(static_cast<double>(report.bytes)),
                            format_duration(system_clock().monotonic_s() - begin_s)));
  for (const std::string& w : report.warnings) progress.note("warning    " + w);
  return {};
}

}  // namespace ferry
