// Whether a task can be solved at all: one that cannot teaches nothing, and lowers every score.
#pragma once

#include <optional>
#include <string>

#include "rl/tasks.h"

namespace ferry::rl {

struct Unsolvable {
  const char* field;  // of the task's, that is to blame
  std::string why;
};

/// Why no answer could be right, or its own solution is not. Nothing where neither is so, and where it cannot be told:
/// what matches a pattern, what a program says, and a countdown of more than four numbers whose solution is not given.
std::optional<Unsolvable> unsolvable(const Task& task);

}  // namespace ferry::rl
