// A run's checkpoint: the model directory, and all that the run needs to go on from it bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/checkpoints.h"
#include "checkpoint/model_texts.h"
#include "data/dataset.h"
#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/zscore.h"

namespace ferry {

/// What changes from step to step, besides weights and optimizer state.
struct RunState {
  int64_t step = 0;     // steps done, refused ones too: the position in the data
  int64_t refused = 0;  // updates that were refused
  double seconds = 0;   // of training, over all parts of the run
  ZScore loss_z, norm_z;
  std::optional<double> held_out_loss;  // of these weights
  std::vector<std::string> devices;     // that the run was on, in order, each once
};

/// Both parts of a checkpoint, as they would be written now (tensors are shared, not copied).
/// `texts`: what the directory that the run began with, or the checkpoint that it went on from, says
/// about text; nullptr if there is none.
ModelContents model_contents(models::CausalLm& model,
                             const ModelTexts* texts,
                             const data::Dataset& dataset,
                             const Settings& settings);
TrainingStateContents state_contents(models::CausalLm& model,
                                     const Optimizer& optimizer,
                                     const RunState& state,
                                     const data::Dataset& dataset,
                                     const Settings& settings);

/// Bytes on disk of one checkpoint.
uint64_t checkpoint_bytes(models::CausalLm& model,
                          const ModelTexts* texts,
                          const Optimizer& optimizer,
                          const data::Dataset& dataset,
                          const Settings& settings);

struct Resumed {
  RunState state;
  Settings settings;  // those that the checkpoint was written under
};

/// Fills model and optimizer from the checkpoint. Errors: kInvalidInput if the data or the
/// optimizer's kind is another, kCorrupt, kNotFound.
Result<Resumed> restore(const CheckpointInfo& checkpoint,
                        models::CausalLm& model,
                        Optimizer& optimizer,
                        const data::Dataset& dataset);

/// What a checkpoint's files beside the weights say.
struct CheckpointFiles {
  std::string config_json;
  ModelTexts texts;
};
/// Errors: kNotFound, kCorrupt, kInvalidInput.
Result<CheckpointFiles> read_checkpoint_files(const CheckpointInfo& checkpoint);

}  // namespace ferry
