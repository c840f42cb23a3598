// ferry convert.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_convert_command(Command& program);

}  // namespace ferry::cli
