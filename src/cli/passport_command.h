// ferry passport and ferry keygen.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_passport_command(Command& program);

}  // namespace ferry::cli
