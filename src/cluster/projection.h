// What the goodput of a run would be at scales that nobody here has: from what was measured of a run's recoveries, how
// often chips fail as others have published it, and what has to be assumed. None of these is in the code: the measured
// comes from a file of tools/goodput.py, the rest from one like configs/goodput.json. Where both are read: the
// arithmetic is cluster/goodput.h's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cluster/goodput.h"

namespace ferry::cluster {

/// Of one kind of fault, means over so many.
struct MeasuredFault {
  int64_t faults = 0;
  double detect_s = 0;   // until it was told
  double restart_s = 0;  // from then until the next step was made
  double slowest_s = 0;  // both, of the slowest
  double total_s() const { return detect_s + restart_s; }
};

struct Measured {
  std::string command, machine, date, load;  // where it comes from
  std::vector<std::string> settings;         // of the runs
  int64_t ranks = 0;
  double step_s = 0;           // of these runs
  double checks_share = 0;     // of a step's time: hashes and audits
  double save_s = 0;           // that a checkpoint keeps the steps waiting
  MeasuredFault process = {};  // a rank was killed
  MeasuredFault silent = {};   // a rank said nothing any more: what is seen of a host that is lost
  MeasuredFault pair = {};     // a rank and its replica were killed: from the newest checkpoint
};

/// So many faults in so many days of so many chips.
struct FailureRate {
  std::string name, source;
  double faults = 0, days = 0, chips = 0;
  double of_processes = 0;  // of the faults: those that leave the host as it was
  double mtbf_s(double of_chips) const { return days * 86400 * chips / faults / of_chips; }
};

/// What somebody else has published of the time in which training went on.
struct PublishedGoodput {
  std::string name, note, source;
  double share = 0;
  std::optional<double> chips = {};   // at which scale
  std::optional<double> mtbf_s = {};  // or at which time between faults
};

struct PublishedRecovery {
  std::string name, source;
  double seconds = 0;
};

/// What is neither measured nor published for the run that is projected.
struct Assumptions {
  double chips_per_host = 0;
  double step_s = 0;
  double checkpoint_s = 0;       // of work between two checkpoints
  double state_gb_per_chip = 0;  // what a successor must be given
  double link_gb_per_s = 0;      // at which a host is given it by others
  double storage_gb_per_s = 0;   // and from the disk
  double together_share = 0;     // of faults: that take a rank and its replica at once
};

/// One of them, for whoever prints or sets it.
struct Assumption {
  const char* name;
  double Assumptions::*value;
  double low, high;
};
const std::vector<Assumption>& assumption_list();

struct Published {
  std::vector<FailureRate> rates;  // the first one is what is told first
  std::vector<PublishedGoodput> goodputs;
  std::vector<PublishedRecovery> recoveries;
  Assumptions assumptions = {};
  std::vector<std::string> why = {};  // of each assumption
};

/// Errors: of read_file(), kCorrupt with the field.
Result<Measured> read_measured(const std::string& path);
Result<Published> read_published(const std::string& path);
/// "step_s=10". Errors: kInvalidInput.
Result<void> assume(Published& published, std::string_view text);

/// At one scale and one rate.
struct AtRate {
  double mtbf_s = 0;
  Goodput usual;  // kinds of faults as published, recoveries as they were on average
  Goodput worst;  // every fault is a lost host, and recovers as slowly as the slowest one did
  double with_overhead = 0;  // usual, of which the steady overhead is taken
};
struct AtScale {
  double chips = 0;
  std::vector<AtRate> rates = {};  // in the order of the file
  std::vector<Goodput> recoveries =
      {};  // at the first rate, with the recoveries that others published
};

/// Of a step's time, while nothing fails: checks, and checkpoints.
double steady_overhead(const Measured& measured, const Assumptions& assumed);
/// check: chips > 0.
AtScale project(const Measured& measured, const Published& published, double chips);
/// The usual goodput at the first rate's kinds of faults, were so long between them.
Goodput at_mtbf(const Measured& measured, const Published& published, double mtbf_s);

}  // namespace ferry::cluster
