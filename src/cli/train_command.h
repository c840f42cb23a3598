// ferry train.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_train_command(Command& program);
/// ferry rl: the same of a run that learns from tasks.
void add_rl_command(Command& program);

}  // namespace ferry::cli
