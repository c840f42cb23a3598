// The share of its time in which a run makes steps that count, from how often something fails and how long each failure
// lasts: arithmetic alone, without a clock, a file or a constant of its own.
//
// What is modelled. Faults come at random, at a rate that does not depend on what was before (a Poisson process), while
// steps are made as well as while a fault is being made up for. A fault during a step undoes that step. It begins an
// outage, which ends when nothing has failed for as long as the recovery takes; a fault meanwhile begins it again, with
// the longer one of the two recoveries. Where what is lost has nobody left who holds it (a rank and its replica
// together) the recovery is that from the disk, and all steps since the last checkpoint are made again.
#pragma once

#include <vector>

namespace ferry::cluster {

/// One kind of fault.
struct FaultKind {
  double share = 0;  // of all faults
  double recovery_s =
      0;  // from the fault until steps are made again, if nothing else fails meanwhile
};

/// A run at one scale.
struct GoodputCase {
  double faults_per_s = 0;  // of the whole run
  double step_s = 0;
  std::vector<FaultKind> kinds;  // their shares add up to 1
  double together_at_once = 0;   // of faults: that take a rank and its replica with one blow
  double together_later =
      0;  // of faults during a recovery: that take what the lost one's partner holds
  double from_disk_s = 0;   // as recovery_s, when nobody is left who holds what was lost
  double checkpoint_s = 0;  // of work between two checkpoints
};

struct Goodput {
  double share = 0;              // of the time: steps that count
  double outages = 0;            // of the time: faults being made up for
  double made_again = 0;         // of the time: steps that were undone, and parts of them
  double from_disk_per_day = 0;  // how often nobody was left
  /// 1 - (recovery + half a step) / (time between faults): what holds while that is small, and is below zero where
  /// it is not.
  double first_order = 0;
};

/// check: shares within 0 to 1 that add up to 1, times above zero (of recoveries: at least zero).
Goodput goodput_of(const GoodputCase& c);

}  // namespace ferry::cluster
