// ferry logits.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_logits_command(Command& program);

}  // namespace ferry::cli
