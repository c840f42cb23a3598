#include "device/upload_ring.h"

#include <algorithm>

#include "base/check.h"

namespace ferry {

bool UploadRing::occupied(size_t begin, size_t end) const {
  return std::any_of(
      parts_.begin(), parts_.end(), [&](const Part& p) { return p.begin < end && begin < p.end; });
}

/// Waits until the chip has read it.
void UploadRing::free_oldest() {
  const Event event = parts_.front().read;
  wait(event);
  parts_.pop_front();  // only now: its memory is the chip's where waiting throws
  destroy(event);
}

void* UploadRing::take(size_t bytes) {
  constexpr size_t kAlignment = 64;
  check(bytes <= kPartBytesMax, "upload: {} bytes at once", bytes);
  if (memory_ == nullptr) memory_ = static_cast<char*>(pinned(kBytes));
  const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t begin = next_ + size <= kBytes ? next_ : 0;
  while (parts_.size() >= kPartsMax || occupied(begin, begin + size)) free_oldest();
  taken_ = {begin, begin + size, nullptr};
  next_ = begin + size;
  return memory_ + begin;
}

void UploadRing::sent() {
  taken_.read = record();
  parts_.push_back(taken_);
}

}  // namespace ferry
