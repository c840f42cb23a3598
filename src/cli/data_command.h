// ferry data prepare, ferry data inspect.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_data_command(Command& program);

}  // namespace ferry::cli
