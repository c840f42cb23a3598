// Memory of an Ascend chip, reused in the order of its stream: a block that is given back may be
// taken at once, because whatever uses it next is queued behind whatever used it last.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "device/device.h"

namespace ferry {

class AscendDevice;

class AscendPool {
 public:
  explicit AscendPool(AscendDevice& device) : device_(device) {}

  /// 64-byte aligned and uninitialised; a block of this size that was given back, else new. When
  /// the chip has none left, waits for the stream, returns what is cached to the chip and tries
  /// again. Throws DeviceError.
  void* allocate(size_t bytes);
  void deallocate(void* p, size_t bytes);

  MemoryUse use() const { return use_; }
  void reset_peak() { use_.peak_bytes = use_.live_bytes; }

 private:
  void release_cached();

  AscendDevice& device_;
  std::map<size_t, std::vector<void*>> free_;
  MemoryUse use_;
};

}  // namespace ferry
