// A run's folder of checkpoints. Each is step-00001200/: a model directory and its training state,
// written and removed as one unit. "Latest" is found by listing; nothing points to it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/training_state.h"

namespace ferry {

struct CheckpointInfo {
  int64_t step = 0;
  std::string path;
  std::optional<double> held_out_loss;
  std::vector<int64_t> rewound = {};  // the steps that its run had gone back to by then, in order
};

/// A step folder that cannot be resumed from: damaged, cut short, without its state, or not Ferry's.
struct IgnoredCheckpoint {
  int64_t step = 0;
  std::string path, why;
  bool state_left_out = false;  // which leaves a model that somebody keeps
};

struct CheckpointList {
  std::vector<CheckpointInfo> complete;    // by step, ascending
  std::vector<IgnoredCheckpoint> ignored;  // by step, ascending
  std::vector<CheckpointInfo> undone;      // likewise: is_undone(), and not set aside yet
};

/// Whether the run has gone back to before `step` since it saved that, `before` being where it had gone back to until
/// then, and `now` until now: what lies in the step's place is undone.
bool is_undone(int64_t step, const std::vector<int64_t>& before, const std::vector<int64_t>& now);

std::string checkpoint_path(const std::string& folder, int64_t step);

/// The steps of the run's step folders, ascending, whatever is in them. A folder that does not exist has none. Errors:
/// kUnavailable, kExhausted.
Result<std::vector<int64_t>> step_folders(const std::string& folder);

/// What an error says of a checkpoint itself, and not of a disk that did not answer, a permission or a limit: only then
/// may it be passed over.
bool is_damage(Code code);

/// The checkpoint in this folder, which need not have its step's name, if it is complete. Errors: is_damage(), if it is
/// not; kUnavailable, kExhausted: it cannot be read just now.
Result<CheckpointInfo> inspect_checkpoint(const std::string& path, int64_t step);

/// Complete: checksums.json and every file that it lists, of the listed size, and a state.json that
/// is unharmed and says the same step. (ModelDir::verify hashes the rest.) Puts back what a killed
/// replacement left aside. What was undone by the one that has gone back most often is apart. A
/// folder that does not exist is an empty list. Errors: kUnavailable,
/// kExhausted: what cannot be read just now is not damaged, and nothing is known about it.
Result<CheckpointList> list_checkpoints(const std::string& folder);

/// The last one of the list. Errors: kNotFound, with what was ignored and why.
Result<CheckpointInfo> newest_checkpoint(const std::string& folder);

/// Writes, or replaces, the checkpoint of `step`. check: the document's step is `step`.
/// Errors: kExhausted before anything is written if the disk is short, or while writing;
/// kUnavailable. The checkpoints that are there stay as they are unless the message says otherwise.
Result<SaveReport> save_checkpoint(const std::string& folder,
                                   int64_t step,
                                   const ModelContents& model,
                                   const TrainingStateContents& state);

struct KeepRules {
  int keep_last = 3;       // the newest, at least 1
  int keep_best = 1;       // those with the lowest held-out loss; the newer of equals
  int64_t keep_step = -1;  // and the one of this step
};

/// Those of the list, oldest first, that the rules do not keep. Pure.
std::vector<CheckpointInfo> not_kept(const std::vector<CheckpointInfo>& list,
                                     const KeepRules& keep);

/// Removes the other complete checkpoints, and leftovers of dead writers. Returns the paths
/// removed. Errors: kUnavailable, naming the first that could not be removed (the others are), or
/// that holds what Ferry did not write and therefore stays.
Result<std::vector<std::string>> prune_checkpoints(const std::string& folder, KeepRules keep);

}  // namespace ferry
