// ferry goodput: what share of its time a run would make steps in, at scales that nobody here has.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_goodput_command(Command& program);

}  // namespace ferry::cli
