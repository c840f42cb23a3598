// PTX text to a module: the part of the language that nvcc writes for kernels without calls, local
// arrays and tables. What is not understood is refused with its line, never passed over.
#pragma once

#include <string_view>

#include "ptx/module.h"

namespace nvidia_sim {

/// Throws PtxError.
Module parse_ptx(std::string_view text);

}  // namespace nvidia_sim
