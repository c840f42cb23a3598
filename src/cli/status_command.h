// ferry status: what a run is at, from its folder.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_status_command(Command& program);

}  // namespace ferry::cli
