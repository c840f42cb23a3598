// What a run begins with: a fresh model, one that continues another's weights, or its newest
// checkpoint.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "models/trainable_lm.h"
#include "optim/optimizer.h"
#include "train/beats.h"
#include "train/carried.h"
#include "train/config.h"
#include "train/run_data.h"
#include "train/run_state.h"
#include "train/shared_step.h"

namespace ferry {

constexpr const char* kSamplesFolder = "samples";  // in the run's: answers to read

struct Beginning {
  std::unique_ptr<models::TrainableLm> model;
  std::optional<ModelTexts> texts;          // of the directory that the run goes on from
  std::unique_ptr<TrainedAdapter> adapter;  // that is trained in place of the model; nullptr: none
  std::optional<Optimizer> optimizer;
  RunState state;
  int64_t saved_step = -1;  // of the checkpoint that it goes on from
};

/// Removes what write_file_atomic left in the run's folder when its process was killed. The folder
/// is locked: nobody is writing there. (Step folders that were being written have their own rules,
/// and are hidden.)
Result<void> remove_run_leftovers(const std::string& folder);

/// say() is told what is gone on from, and what changed. A folder whose step folders cannot be used,
/// all of them, is refused, whether `resume` is asked for or not: it holds a run, and beginning anew
/// there would write over what may be restored. So is one in which a save that is still to come
/// could not replace what stands in its place, and one without a checkpoint where another run has set some aside
/// (checkpoint/undone_checkpoints.h). The optimizer holds what is this rank's to hold.
/// Errors: kInvalidInput (the folder holds a run and `resume` is not asked for, a setting that
/// cannot change, sequences longer than the model's context, a folder in the way), kNotFound,
/// kCorrupt; kUnavailable, kExhausted: what is there cannot be read just now.
Result<Beginning> begin_run(const Settings& settings,
                            bool resume,
                            const RunData& data,
                            Device& device,
                            Beats& beats,
                            const std::function<void(const std::string&)>& say,
                            const RankPlace& place = {});

/// What a rank begins with that takes another one's place: the model that the others have told it of, all of whose
/// trained weights and state are still to come from them. Of an adapter, its base is read. Errors: as above.
Result<Beginning> begin_in_place(const Settings& settings,
                                 const RunData& data,
                                 Device& device,
                                 ModelWord model,
                                 const RankPlace& place);

}  // namespace ferry
