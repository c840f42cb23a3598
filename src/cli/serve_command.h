// ferry serve.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_serve_command(Command& program);

}  // namespace ferry::cli
