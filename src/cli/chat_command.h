// ferry chat.
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_chat_command(Command& program);

}  // namespace ferry::cli
