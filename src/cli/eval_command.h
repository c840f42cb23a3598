// ferry eval.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_eval_command(Command& program);

}  // namespace ferry::cli
