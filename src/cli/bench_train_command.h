// ferry bench-train.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_bench_train_command(Command& program);

}  // namespace ferry::cli
