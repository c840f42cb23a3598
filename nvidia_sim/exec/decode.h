// A module made ready to be executed.
#pragma once

#include "exec/program.h"
#include "ptx/module.h"

namespace nvidia_sim {

/// Throws PtxError for whatever software NVIDIA does not carry out, or is not PTX.
Program decode(const Module& module);

}  // namespace nvidia_sim
