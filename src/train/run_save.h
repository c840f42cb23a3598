// Saving a run: the checkpoint, then what follows from there being one.
#pragma once

#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/beats.h"
#include "train/config.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_data.h"
#include "train/run_state.h"

namespace ferry {

/// Writes the checkpoint of state.step, removes those that are not to be kept, draws the curve; `progress`
/// tells of it. What does not go well although the checkpoint is whole (leftovers and older checkpoints that
/// could not be removed, a curve that could not be drawn) is told as well: the run goes on.
/// Errors: of the checkpoint: kExhausted, kUnavailable; kNotFound, kInvalidInput (the
/// key).
Result<void> save_run(models::CausalLm& model,
                      const ModelTexts* texts,
                      const TrainedAdapter* adapter,
                      const Optimizer& optimizer,
                      const RunState& state,
                      const RunData& data,
                      const Settings& settings,
                      const Metrics& metrics,
                      Beats& beats,
                      Progress& progress);

}  // namespace ferry
