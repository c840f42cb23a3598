// What only a chip of its own has: memory beside the host's, and launches that end later.
#pragma once

#include <cstdint>
#include <optional>

#include "device/device.h"

namespace ferry {

/// Bytes that can still be allocated; nothing where the device's memory is the host's.
std::optional<uint64_t> chip_memory_available(Device& device);

/// From now on each launch is waited for, so that an error names the one that failed. Slow; where
/// launches run at once there is nothing to do.
void set_replay(Device& device, bool on);

}  // namespace ferry
