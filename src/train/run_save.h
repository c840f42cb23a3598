// Saving a run: the checkpoint, then what follows from there being one.
#pragma once

#include <functional>

#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/beats.h"
#include "train/config.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_data.h"
#include "train/run_state.h"

namespace ferry {

/// What came of a save; where there was no room for it on the disk, nothing.
enum class Saved { kWhole, kNoRoom };

/// Writes the checkpoint of state.step, removes those that are not to be kept, draws the curve; `progress`
/// tells of it. What does not go well although the checkpoint is whole (leftovers and older checkpoints that
/// could not be removed, a curve that could not be drawn) is told as well: the run goes on.
/// Where the disk has no room for it, that is told, and `keep_waiting` is asked each second whether to wait until there
/// is; empty: nothing is waited for, and nothing saved. What was saved before stays.
/// Errors: of the checkpoint: kExhausted (no room, and no waiting any more; or a limit that is not the disk's room),
/// kUnavailable; kNotFound, kInvalidInput (the key).
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
                       const std::function<bool()>& keep_waiting);

}  // namespace ferry
