// ferry generate.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_generate_command(Command& program);

}  // namespace ferry::cli
