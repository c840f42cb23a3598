// ferry score: how good a model is at tasks whose answers can be checked.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_score_command(Command& program);

}  // namespace ferry::cli
