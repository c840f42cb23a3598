#include "device/require_memory.h"

#include "base/units.h"

namespace ferry {

Result<void> require_memory(const Device& device, double bytes, const std::string& path) {
  const MemoryAvailable available = memory_available(device);
  if (bytes <= static_cast<double>(available.bytes)) return {};
  return fail(Code::kExhausted,
              "{}: the weights take {} of memory, {} are free on {}{}; choose a smaller model or a "
              "larger machine",
              path,
              format_bytes(bytes),
              format_bytes(static_cast<double>(available.bytes)),
              device.name(),
              available.within);
}

}  // namespace ferry
