// ferry doctor: may this chip be trusted with a run?
#pragma once

#include "cli/command_line.h"

namespace ferry::cli {

void add_doctor_command(Command& program);

}  // namespace ferry::cli
