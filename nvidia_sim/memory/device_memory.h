// A device's memory: allocations at addresses that come only once, so that what outlives an
// allocation can be told from what followed it, and that the host cannot reach: they are no
// addresses of its own. Every byte knows whether it was written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

namespace nvidia_sim {

/// How bytes are used; decides what is checked.
enum class Access : uint8_t { kRead, kWrite };

struct Allocation {
  enum class State : uint8_t { kOrdered, kLive, kFreed };
  uint64_t address = 0;
  uint64_t bytes = 0;
  State state = State::kOrdered;  // kOrdered: the stream has not come to it yet
  int owners = 1;                 // more by a defect alone
  std::vector<uint8_t> data;
  std::vector<uint8_t> written;  // 1 for each byte that was

  bool holds(uint64_t at, uint64_t size) const {
    return state == State::kLive && at - address <= bytes && size <= bytes - (at - address);
  }
};

class DeviceMemory {
 public:
  explicit DeviceMemory(uint64_t bytes) : bytes_(bytes) {}

  /// An address, aligned to 256 bytes; 0 if there is not enough memory left. It may be used from
  /// begin() to end(), which the stream says when it comes to them.
  uint64_t allocate(uint64_t bytes);
  void begin(uint64_t address);
  /// Throws Violation for what is no allocation, or was freed before.
  void end(uint64_t address);

  /// For a defect: memory of the size that somebody has; 0 if nobody has any.
  uint64_t hand_out_again(uint64_t bytes);

  /// What allocations held before something was written there.
  struct Before {
    std::vector<uint8_t> data, written;
  };
  using Record = std::map<uint64_t, Before>;
  /// From now on, the first time that one is written to; nullptr: no longer.
  void record(Record* into) { record_ = into; }
  Allocation& at(uint64_t address) { return *allocations_.at(address); }

  /// Whether these bytes are part of a live allocation.
  bool holds(uint64_t address, uint64_t bytes) const;

  /// The live allocation around these bytes. Throws Violation.
  Allocation& around(uint64_t address, uint64_t bytes, Access access);
  /// Whether it is where an allocation that can be freed begins.
  bool is_allocated(uint64_t address) const;

  uint64_t total() const { return bytes_; }
  uint64_t used() const { return used_; }

 private:
  /// That of the greatest address up to this one, or nullptr.
  Allocation* find(uint64_t address) const;

  uint64_t bytes_;
  uint64_t used_ = 0;
  uint64_t next_ = uint64_t{1} << 56;  // beyond what a process can map
  std::map<uint64_t, std::unique_ptr<Allocation>> allocations_;
  std::map<uint64_t, uint64_t> of_size_;  // the last allocation of each size
  Record* record_ = nullptr;
  std::deque<uint64_t> freed_;  // remembered, up to a number, to say "use after free"
};

}  // namespace nvidia_sim
