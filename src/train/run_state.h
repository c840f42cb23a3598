// A run's checkpoint: the model directory, and all that the run needs to go on from it bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "adapter/trained_adapter.h"
#include "checkpoint/checkpoints.h"
#include "checkpoint/model_texts.h"
#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/spike.h"
#include "train/step_routing.h"
#include "train/zscore.h"

namespace ferry {

/// What changes from step to step, besides weights and optimizer state.
struct RunState {
  int64_t step = 0;    // steps done, refused ones too
  int64_t tokens = 0;  // that they took; with what was skipped: where in the stream the next begins
  int64_t refused = 0;  // updates that were refused
  double seconds = 0;   // of training, over all parts of the run
  ZScore loss_z, norm_z;
  Spike spike;                          // that the last step was of
  Rewinds rewinds;                      // from such ones
  StepRouting anticipated;              // that the next step is given; none: it chooses by itself
  std::optional<double> held_out_loss;  // of these weights
  int64_t position = 0;                 // in the order of tasks, of reinforcement learning
  /// Of a run that learns from pairs of answers: each answer's log-probability under the model that it began with
  /// (train/preferences.h).
  Tensor reference_log_probs = {};
  /// Of the model that a KL term compares with, which goes into checkpoints; nullptr: there is none.
  models::CausalLm* reference = nullptr;
  std::vector<std::string> devices;  // that the run was on, in order, each once
};

/// Both parts of a checkpoint, as they would be written now (tensors are shared, not copied).
/// `texts`: what the directory that the run began with, or the checkpoint that it went on from, says
/// about text; nullptr if there is none.
ModelContents model_contents(models::CausalLm& model,
                             const ModelTexts* texts,
                             const RunData& data,
                             const Settings& settings);
/// The same of a run that trains an adapter: its factors, and no weight or text of its base.
ModelContents adapter_contents(const TrainedAdapter& adapter);
TrainingStateContents state_contents(models::CausalLm& model,
                                     const Optimizer& optimizer,
                                     const RunState& state,
                                     const RunData& data,
                                     const Settings& settings);

/// What a state's document says, which TrainingStateContents has.
struct StateDocument {
  RunState state;
  int64_t updates = 0;            // of the optimizer
  Settings settings;              // those that it was written under
  std::string data;               // fingerprint
  std::string held_out, program;  // likewise, where there are any; earlier runs do not say it
  std::string base_config;        // of an adapter's base, if it says it
  std::pair<int64_t, int64_t> anticipated = {};  // size_of() RunState's
};

/// Errors: kCorrupt, naming `path`; kInvalidInput if the numerics are others.
Result<StateDocument> read_state_document(const std::string& document, const std::string& path);

/// What a checkpoint says of its run, before anything large is made for it.
struct Resumed {
  RunState state;
  int64_t updates = 0;  // of the optimizer
  ResumePoint point;
  std::string program;                           // as StateDocument has it
  std::pair<int64_t, int64_t> anticipated = {};  // likewise
  ModelTexts texts;                              // none of an adapter: they are its base's
  std::optional<Adapter> adapter;                // in place of a model
  TrainingStateReader reader;
};

/// Errors: kInvalidInput if the data is another, or what is held out of it, or the numerics are; kCorrupt, kNotFound.
Result<Resumed> read_run(const CheckpointInfo& checkpoint, const RunData& data);

/// Fills model and optimizer from the checkpoint, and the state's routing; with an `adapter`, whose base the model is,
/// that one's factors.
/// Errors: kInvalidInput if the optimizer is another, kCorrupt.
Result<void> restore(Resumed& from,
                     models::CausalLm& model,
                     TrainedAdapter* adapter,
                     Optimizer& optimizer);

/// Takes RunState::reference_log_probs of so many answers from the checkpoint of this path. Errors: kCorrupt.
Result<Tensor> restore_reference_log_probs(const std::string& checkpoint, int64_t answers);

/// Fills the model of a KL term from the checkpoint of this path. Errors: kCorrupt, kInvalidInput (it was
/// written without one).
Result<void> restore_reference(const std::string& checkpoint, models::CausalLm& reference);

}  // namespace ferry
