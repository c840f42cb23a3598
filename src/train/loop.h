// The training loop: what one worker process does from its first step, or its last checkpoint, to
// the end.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "train/beats.h"
#include "train/config.h"

namespace ferry {

struct TrainOptions {
  bool resume = false;                      // go on from the newest checkpoint of checkpoint.dir
  const std::atomic<bool>* stop = nullptr;  // set: save and leave after the step under way
  Beats::Send beat;                         // what it is at, all the time; from any thread
  int64_t replay_to = 0;  // until so many steps are done, wait for each launch: an error names it
  std::FILE* out = stdout;
  /// The other processes that this run is trained by, if there are any; all are given the same settings. Rank 0
  /// is the one that says, evaluates and writes.
  comm::Communicator* ranks = nullptr;
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
  double seconds = 0;  // of training steps, over all parts of the run
  /// By several ranks: how many, what rank 0 sends in a step, and the share of a step's time in which it sends,
  /// receives and waits for others.
  int ranks = 1;
  std::optional<double> sent_bytes_per_step = {};
  std::optional<double> exchange_share = {};
};

/// Names in the result what the checkpoint of `step` is.
void name_saved(const Settings& settings, int64_t step, TrainResult& result);

/// Errors: kInvalidInput, kNotFound, kCorrupt: settings, data, checkpoint; kExhausted: memory,
/// disk; kVerdict: the loss stayed not finite. Throws DeviceError, of another rank comm::LinkError.
Result<TrainResult> train(const Settings& settings, const TrainOptions& options);

}  // namespace ferry
