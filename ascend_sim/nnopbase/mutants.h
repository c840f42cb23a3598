// Mechanical mutants: what happens to an op's outputs when FERRY_ASCEND_SIM_MUTANT names the op.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "nnopbase/tensor.h"

namespace ascend_sim {

/// The kind that is asked for this op; empty if none is.
std::string mutant_of(const std::string& op);

/// Runs `work`, which writes `outputs`, and spoils them as `kind` says. k_minus_1 is the op's own.
void run_mutant(const std::string& kind,
                const std::vector<Tensor>& outputs,
                const std::function<void()>& work);

}  // namespace ascend_sim
