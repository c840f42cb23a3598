// What a model's weights take and a device has.
#pragma once

#include <string>

#include "base/result.h"
#include "device/device.h"

namespace ferry {

/// Before any memory is taken for weights: a system that promises more than it has would end the
/// process later. `path` names the model. Errors: kExhausted.
Result<void> require_memory(const Device& device, double bytes, const std::string& path);

}  // namespace ferry
