// A module made ready to be executed.
#pragma once

#include "driver/defects.h"
#include "exec/program.h"
#include "ptx/module.h"

namespace nvidia_sim {

/// Throws PtxError for whatever software NVIDIA does not carry out, or is not PTX.
/// What is planted spoils instructions.
Program decode(const Module& module, const Planted& planted = {});

}  // namespace nvidia_sim
