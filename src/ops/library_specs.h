// Specs of single calls of a vendor's library, below the level of our ops, for whatever device is
// examined.
#pragma once

#include <vector>

#include "device/device.h"
#include "ops/spec.h"

namespace ferry::ops {

/// One spec for each call of the library of this kind of device that kernels compose others from;
/// empty for devices whose kernels are all our own. Made anew in every call.
std::vector<OpSpec> library_specs(DeviceKind kind);

}  // namespace ferry::ops
