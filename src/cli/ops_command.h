// ferry ops: which op has a kernel on which device, and how fast the kernels are here.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_ops_command(Command& program);

}  // namespace ferry::cli
