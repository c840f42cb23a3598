// Pinned memory through which the host's bytes go to a chip, handed out in a ring: an upload waits
// for the chip only when the ring is full of what the chip has not read yet.
#pragma once

#include <cstddef>
#include <deque>

namespace ferry {

/// Thread rule and lifetime: the device's.
class UploadRing {
 public:
  static constexpr size_t kPartBytesMax = size_t{4} << 20;

  UploadRing() = default;
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;
  virtual ~UploadRing() = default;

  /// Pinned memory for at most kPartBytesMax, until sent(). Throws DeviceError.
  void* take(size_t bytes);
  /// The copy that reads what take() gave has been launched.
  void sent();

 protected:
  using Event = void*;
  // What the vendor's library does; each throws DeviceError.
  virtual void* pinned(size_t bytes) = 0;
  virtual Event record() = 0;  // behind what was launched
  virtual void wait(Event event) = 0;
  virtual void destroy(Event event) = 0;

 private:
  struct Part {
    size_t begin, end;
    Event read;  // recorded behind the copy
  };

  static constexpr size_t kBytes = 2 * kPartBytesMax;
  static constexpr size_t kPartsMax = 256;  // events are scarce on a chip

  bool occupied(size_t begin, size_t end) const;
  void free_oldest();

  char* memory_ = nullptr;
  std::deque<Part> parts_;  // in the order of the stream
  size_t next_ = 0;
  Part taken_ = {};
};

}  // namespace ferry
