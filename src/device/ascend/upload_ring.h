// Pinned memory through which the host's bytes go to an Ascend chip, handed out in a ring: an
// upload waits for the chip only when the ring is full of what the chip has not read yet.
#pragma once

#include <cstddef>
#include <deque>

#include "device/ascend/acl.h"

namespace ferry {

class AscendDevice;

/// Thread rule and lifetime: the device's.
class UploadRing {
 public:
  static constexpr size_t kPartBytesMax = size_t{4} << 20;

  explicit UploadRing(AscendDevice& device) : device_(device) {}

  /// Pinned memory for at most kPartBytesMax, until sent(). Throws DeviceError.
  void* take(size_t bytes);
  /// The copy that reads what take() gave has been launched.
  void sent();

 private:
  struct Part {
    size_t begin, end;
    acl::Event read;  // recorded behind the copy
  };

  static constexpr size_t kBytes = 2 * kPartBytesMax;
  static constexpr size_t kPartsMax = 256;  // events are scarce on a chip

  bool occupied(size_t begin, size_t end) const;
  void free_oldest();

  AscendDevice& device_;
  char* memory_ = nullptr;
  std::deque<Part> parts_;  // in the order of the stream
  size_t next_ = 0;
  Part taken_ = {};
};

}  // namespace ferry
