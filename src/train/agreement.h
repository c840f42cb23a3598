// Before ranks train together: whether all of them can, and with the same. One that has other settings, data or
// weights, or runs another program, would train another model; it is refused by name before the first step.
#pragma once

#include <string>

#include "base/result.h"
#include "comm/communicator.h"
#include "models/causal_lm.h"
#include "optim/optimizer.h"
#include "train/config.h"
#include "train/run_data.h"
#include "train/run_state.h"

namespace ferry {

/// What must be the same of all ranks, hashed.
struct Identity {
  std::string binary, settings, data, weights;
  bool operator==(const Identity&) const = default;
};

/// Errors: of reading the program's own file.
Result<Identity> identity_of(const Settings& settings,
                             const RunData& data,
                             models::CausalLm& model,
                             const RunState& state,
                             const Optimizer& optimizer);

/// What a rank says of itself.
struct Readiness {
  Result<void> prepared = {};  // what it cannot go on for, if so
  bool stop = false;           // it was told to leave
  Identity identity = {};      // empty where the ranks have nothing to compare yet
};

/// What becomes of them: each rank comes to the same.
struct Agreement {
  Result<void> all =
      {};  // the failure of the first one that has one, by its name; or who differs in what
  bool stop = false;
};

/// Asks all ranks; `round` counts how often. Throws comm::LinkError.
Agreement agree(comm::Communicator& ranks, int64_t round, const Readiness& mine, double patience_s);

}  // namespace ferry
