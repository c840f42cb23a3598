// Updates that a run refuses: when too many are, it has diverged, and going on only burns the machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "train/progress.h"

namespace ferry {

/// Owner: the loop; of the steps of one process.
class Refusals {
 public:
  Refusals() = default;
  /// Of a process that goes on where another was.
  Refusals(int64_t steps, int64_t in_a_row) : steps_(steps), in_a_row_(in_a_row) {}
  int64_t steps() const { return steps_; }
  int64_t in_a_row() const { return in_a_row_; }

  /// Once for each step: why its update was refused, if it was, which is told. Errors: kVerdict: the twentieth
  /// in a row; `folder` has the checkpoints.
  Result<void> step(int64_t number,
                    const std::optional<std::string>& why,
                    const std::string& folder,
                    Progress& progress);
  /// At the end of the run, which has done so many steps in all its processes. Errors: kVerdict: this process did
  /// all of them, and each was refused.
  Result<void> end(int64_t steps_of_run) const;

 private:
  int64_t steps_ = 0, in_a_row_ = 0;
};

}  // namespace ferry
