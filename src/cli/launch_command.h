// ferry launch: a command by several processes that work together.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_launch_command(Command& program);

}  // namespace ferry::cli
