// ferry tokenizer: train, encode, decode and bench.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_tokenizer_command(Command& program);

}  // namespace ferry::cli
