// ferry train.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_train_command(Command& program);
/// ferry rl: the same of a run that learns from tasks.
void add_rl_command(Command& program);
/// The same as train, by so many processes (ferry launch).
void add_ranked_train_command(Command& program, int ranks);

}  // namespace ferry::cli
