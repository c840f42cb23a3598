// Checkpoints of steps that a run has undone, because it went back from a loss spike: they are no checkpoints of the
// run any more, and somebody's all the same. They lie in RUN/undone, as step-00001200.3: of step 1200, and set aside
// the third time that some were. Nothing there is gone on from, listed or replaced; to have one again is to move it
// back.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/checkpoints.h"

namespace ferry {

constexpr const char* kUndoneFolder = "undone";  // in the run's

/// Moves what stands in the places of these steps' checkpoints there, whatever it is: also models whose training state
/// was left out, and what others put beside them. Those first that nothing goes on from, then the newest, so that what
/// is left is what a run leaves that is killed. Returns where they are. Errors: kUnavailable, kExhausted: some may have
/// been moved.
Result<std::vector<std::string>> set_aside(const std::string& folder,
                                           const std::set<int64_t>& steps);

/// Those that are complete, oldest first: by when they were set aside, then by step. Errors: kUnavailable, kExhausted.
Result<std::vector<CheckpointInfo>> list_undone(const std::string& folder);

/// How many folders in undone/ are whole, or cannot be looked at just now: these take their room, too. Where undone/
/// itself cannot be listed, none: whoever asks for room asks for more then.
int64_t count_undone(const std::string& folder);

/// Whether anything is set aside there, whole or not. Errors: kUnavailable, kExhausted.
Result<bool> has_undone(const std::string& folder);

/// Removes of those all that `keep` does not name (keep_step is nobody's), so that a run that goes back often does not
/// fill the disk. Returns and errors: as prune_checkpoints.
Result<std::vector<std::string>> prune_undone(const std::string& folder, const KeepRules& keep);

}  // namespace ferry
