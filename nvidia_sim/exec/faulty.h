// Planted defects of single instructions.
#pragma once

#include "driver/defects.h"
#include "exec/program.h"

namespace nvidia_sim {

/// Has the instruction carried out wrongly, if what is planted spoils instructions of its kind.
void plant(Instruction& instruction, const Planted& planted);

}  // namespace nvidia_sim
