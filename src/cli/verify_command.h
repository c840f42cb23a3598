// ferry verify.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_verify_command(Command& program);

}  // namespace ferry::cli
