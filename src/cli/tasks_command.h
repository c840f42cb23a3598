// ferry tasks: makes tasks whose answers can be checked.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_tasks_command(Command& program);

}  // namespace ferry::cli
