// What a chip of its own is asked: memory beside the host's, and launches that end later.
#pragma once

#include <cstdint>
#include <optional>

#include "device/device.h"

namespace ferry {

/// There was no memory left, after everything that was only cached had been given up.
class OutOfDeviceMemory : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

/// Bytes that can still be allocated; nothing where the device's memory is the host's.
std::optional<uint64_t> chip_memory_available(Device& device);

/// From now on each launch is waited for, so that an error names the one that failed. Slow; where
/// launches run at once there is nothing to do.
void set_replay(Device& device, bool on);

}  // namespace ferry
