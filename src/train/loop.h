// The training loop: what one worker process does from its first step, or its last checkpoint, to
// the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <stdexcept>
#include <string>

#include "comm/rejoining.h"
#include "train/beats.h"
#include "train/config.h"

namespace ferry {

struct TrainOptions {
  bool resume = false;  // go on from the newest checkpoint of checkpoint.dir
  bool follows =
      false;  // another worker of the same run: what it began with need not be there any more
  const std::atomic<bool>* stop = nullptr;  // set: save and leave after the step under way
  Beats::Send beat;                         // what it is at, all the time; from any thread
  int64_t replay_to = 0;  // until so many steps are done, wait for each launch: an error names it
  std::FILE* out = stdout;
  /// The other processes that this run is trained by, if there are any; all are given the same settings. Rank 0
  /// is the one that says, evaluates and writes.
  comm::Rejoining* ranks = nullptr;
  /// This one takes the place of a rank that is gone: what it needs the others have.
  bool takes_place = false;
};

/// What the ranks that are left hold is not enough to go on with, or not the same, or a successor cannot take what
/// they give it: the run goes on from the newest checkpoint, or not at all.
class StateLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct TrainResult {
  bool stopped = false;  // by `stop`, before the last step
  int64_t step = 0;
  std::string
      model_dir;  // of the last checkpoint; empty if there is none yet. Of an adapter its base
  std::string adapter;  // of the last checkpoint of a run that trains one
  /// Of the last step; like the speeds below, nothing if this process made no step.
  std::optional<double> loss = {};
  std::optional<double> held_out_bits_per_byte;
  std::optional<double> held_out_accuracy, held_out_margin;  // of pairs of answers
  std::optional<double> tokens_per_s;  // over this process's steps, evaluation and saving left out
  std::optional<double> mfu;
  double seconds = 0;          // of training steps, over all parts of the run
  int64_t rewinds = 0;         // from loss spikes (train/spike.h)
  int64_t skipped_tokens = 0;  // by them
  /// By several ranks: how many, what rank 0 sends in a step, and the share of a step's time in which it sends,
  /// receives and waits for others.
  int ranks = 1;
  std::optional<double> sent_bytes_per_step = {};
  std::optional<double> exchange_share = {};
  std::optional<double> corruption_checks_share = {};  // of the same, for hashes and audits
};

/// Names in the result what the checkpoint of `step` is.
void name_saved(const Settings& settings, int64_t step, TrainResult& result);

/// Errors: kInvalidInput, kNotFound, kCorrupt: settings, data, checkpoint; kExhausted: memory,
/// disk; kVerdict: the loss stayed not finite. Throws DeviceError; with other ranks also StateLost, Spoiled
/// (train/corruption_guard.h),
/// and comm::LinkError where no successor of a rank that is gone is to be met. Whoever else loses a link waits for one,
/// and goes on with it.
Result<TrainResult> train(const Settings& settings, const TrainOptions& options);

}  // namespace ferry
