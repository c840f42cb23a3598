// The mechanical mutants that every op has: what the framework does to an op's outputs
// (nnopbase/mutants.cc). Only k_minus_1 needs the op's help.
#pragma once

#include "acl.h"

namespace ascend_sim {

struct MutantKind {
  const char* name;
  const char* what;
  bool needs_reduction;
};

inline constexpr MutantKind kMutantKinds[] = {
    {"scaled", "outputs are multiplied by 1 + 2^-6", false},
    {"rows", "two rows of each output are exchanged", false},
    {"tail", "the last elements of each output are not written", false},
    {"stale", "outputs keep what was there before", false},
    {"rounding", "outputs are cut instead of rounded, float32 ones to 11 bits", false},
    {"k_minus_1", "the last term of each sum is left out", true},
    {"late_copy", "outputs land only after the next task of the stream", false},
};

/// Ends the program if FERRY_ASCEND_SIM_DEFECT or _MUTANT name what is not registered.
ASCEND_SIM_EXPORT void check_names_of_settings();

/// Counts the calls of now_and_then from 0 again.
void reset_defects();

}  // namespace ascend_sim
