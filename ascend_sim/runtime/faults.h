// The faults that FERRY_ASCEND_SIM_FAULT asks for, counted call by call.
#pragma once

#include <optional>
#include <string>

#include "runtime/memory.h"
#include "runtime/runtime.h"

namespace ascend_sim {

/// Starts counting again, with the settings in force.
void reset_faults();

/// The fault that this call is to end in, if any. `call` is "Malloc", "MemcpyAsync", "Memcpy",
/// "MemsetAsync"; ops ask fault_of_launch. Thread rule: the caller holds the runtime's lock.
std::optional<int> fault_of_call(const std::string& call);

/// The same for an op. Faults of memory come back with every launch that touches the same page,
/// exceptions and timeouts with every launch of the same op on the same tensors: as on a real card,
/// running it again finds them again.
Outcome fault_of_launch(Device& device, const OpLaunch& launch);

/// Codes that a launch meets by never ending: whoever waits for it gives up, or aborts.
bool is_hang(int code);

}  // namespace ascend_sim
