// What a model is about to take and a device has.
#pragma once

#include <string>

#include "base/result.h"
#include "device/device.h"

namespace ferry {

/// Before any memory is taken: a system that promises more than it has would end the process later.
/// `what`, of several ("PATH: the weights"), begins the message, and `advice` ends it. Errors:
/// kExhausted.
Result<void> require_memory(const Device& device,
                            double bytes,
                            const std::string& what,
                            const std::string& advice);
/// The same for the weights of the model that `path` names.
Result<void> require_memory_for_weights(const Device& device,
                                        double bytes,
                                        const std::string& path);

}  // namespace ferry
