// Saving a run: the checkpoint, then what follows from there being one.
#pragma once

#include <string>
#include <vector>

#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/beats.h"
#include "train/config.h"
#include "train/metrics.h"
#include "train/run_data.h"
#include "train/run_state.h"

namespace ferry {

struct Saved {
  std::string path;
  uint64_t bytes = 0;
  /// What did not go well although the checkpoint is whole: leftovers and older checkpoints that
  /// could not be removed, a curve that could not be drawn. The run goes on.
  std::vector<std::string> warnings;
};

/// Writes the checkpoint of state.step, removes those that are not to be kept, draws the curve.
/// Errors: of the checkpoint: kExhausted, kUnavailable; kNotFound, kInvalidInput (the
/// key).
Result<Saved> save_run(models::CausalLm& model,
                       const ModelTexts* texts,
                       const Optimizer& optimizer,
                       const RunState& state,
                       const RunData& data,
                       const Settings& settings,
                       const Metrics& metrics,
                       Beats& beats);

}  // namespace ferry
