// When a loss has spiked for so long that the run goes back to a state from before it, and how far: rules on figures
// that all ranks have alike. Pure.
//
// A step is of a spike if its update was refused, or if its loss lies above a line that was drawn before the spike
// began: what the run had come to, so that a spike does not become what is usual by lasting. One step that is not of
// it ends the spike.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "train/config.h"
#include "train/zscore.h"

namespace ferry {

/// What the last steps were of.
struct Spike {
  static constexpr double kNoLine = std::numeric_limits<double>::infinity();
  int64_t since = 0;      // its first step; 0: the last step was of none
  double line = kNoLine;  // above which a loss is of it; no line: refused updates alone are
  int64_t from =
      0;  // where in the data that first step begins: a token; of pairs of answers, a pair
  bool operator==(const Spike&) const = default;
};

/// Where the run has gone back to, so far.
struct Rewinds {
  int64_t count = 0;           // how often, in all
  int64_t to = 0;              // the step that it went back to last; 0: none
  int64_t furthest = 0;        // the latest step that it ever went back to
  int64_t there = 0;           // how often to that one or to one before it: in vain, so far
  int64_t skipped_tokens = 0;  // of the stream: those of the steps that were undone
  std::vector<int64_t> places =
      {};  // all that it went back to, in order (checkpoint/checkpoints.h, is_undone())
  bool operator==(const Rewinds&) const = default;
};

/// The line for a step whose predecessors' losses these are.
double spike_line(const ZScore& losses, const TrainSettings& settings);

/// After step `step`, where `before` is what the steps before it were of. `line`: spike_line() before its loss was
/// known; `from`: where in the data it begins. A loss that is no number is above every line.
Spike after_step(
    const Spike& before, int64_t step, int64_t from, bool refused, double loss, double line);

/// Whether the run goes back after this step, if there is anything to go back to: after each step of a spike that has
/// lasted long enough, so that settings that changed while it lasted, or a disk that did not answer, decide nothing for
/// good.
bool goes_back(const Spike& spike, int64_t step, const TrainSettings& settings);

/// The last step that can be gone back to, after `step`: its checkpoint is kept. 0: none.
int64_t before_spike(const Spike& spike, int64_t step, const TrainSettings& settings);

/// Of checkpoints of these steps, ascending, those that can be gone back to, the one to try first in front: it is
/// before_spike(), unless somebody or something has taken that away. Not those that a stop made, or whoever stopped a
/// run would have trained another model.
std::vector<int64_t> places_before(const Spike& spike,
                                   int64_t step,
                                   const std::vector<int64_t>& checkpoints,
                                   const TrainSettings& settings);

/// Whether the run has gone back in vain as often as it may: it has not come to a later place since. Places in turn
/// (20, 10, 20, 10) are counted together, so that there is an end to it.
bool has_gone_back_enough(const Rewinds& rewinds, int64_t to, const TrainSettings& settings);

/// When it has gone back to this step, from steps that had taken so many tokens.
Rewinds after_going_back(const Rewinds& before, int64_t to, int64_t taken);

}  // namespace ferry
