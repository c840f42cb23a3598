// ferry bench-serve: how fast a model answers.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_bench_serve_command(Command& program);

}  // namespace ferry::cli
