// The doctor's two processes. The examination runs in a child, so that a driver that crashes or
// hangs is a finding: the parent names the check and the kernel, and a new child goes on behind it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "verify/checks.h"

namespace ferry::doctor {

struct Command {
  std::string program;                                             // "/proc/self/exe"
  std::function<std::vector<std::string>(size_t from)> arguments;  // to begin at check `from`
  std::function<int()> stop = {};  // the signal that has asked for an end; 0: none has
};

/// Runs the examination in children until every check was carried out or given up, tells the
/// listener everything, and concludes. Stopped, the check at hand has some seconds to end, a soak ends with what it
/// has seen, and what was found so far is the report. Errors: the child's, when it could not even begin
/// (kUnavailable: no such device; kInvalidInput).
Result<Report> examine_in_child(const Options& options,
                                const Command& command,
                                const Clock& clock,
                                Listener& listener);

/// The child: examines and writes what its Listener hears to ChildProcess::kPipeFd, a line
/// of JSON each. Returns its exit status: 0 all done, 4 the device
/// was lost (start again behind the check), 5 it was stopped by SIGTERM after a check, else as exit_status() of a
/// failure that was written.
/// Errors: kInvalidInput when that is no pipe.
Result<int> examine_as_child(const Options& options, size_t from);

}  // namespace ferry::doctor
