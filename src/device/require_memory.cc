#include "device/require_memory.h"

#include "base/units.h"

namespace ferry {

Result<void> require_memory(const Device& device,
                            double bytes,
                            const std::string& what,
                            const std::string& advice) {
  const MemoryAvailable available = memory_available(device);
  if (bytes <= static_cast<double>(available.bytes)) return {};
  return fail(Code::kExhausted,
              "{} take {} of memory, {} are free on {}{}; {}",
              what,
              format_bytes(bytes),
              format_bytes(static_cast<double>(available.bytes)),
              device.name(),
              available.within,
              advice);
}

Result<void> require_memory_for_weights(const Device& device,
                                        double bytes,
                                        const std::string& path) {
  return require_memory(
      device, bytes, path + ": the weights", "choose a smaller model or a larger machine");
}

}  // namespace ferry
