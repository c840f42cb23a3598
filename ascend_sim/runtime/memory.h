// Device memory. Its addresses lie in a range that the host may not touch: reading one faults, as
// it would not on every real card, and as it should. The sim itself reaches the bytes through a
// second range, a fixed distance away, where the memory really is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "acl.h"

namespace ascend_sim {

/// Bytes [begin, begin + size) of a device's or of the host's addresses.
struct Range {
  uintptr_t begin = 0;
  size_t size = 0;

  uintptr_t end() const { return begin + size; }
  bool overlaps(const Range& other) const {
    return begin < other.end() && other.begin < end() && size > 0 && other.size > 0;
  }
  bool contains(const Range& other) const { return begin <= other.begin && other.end() <= end(); }
};

inline Range range_of(const void* p, size_t size) { return {reinterpret_cast<uintptr_t>(p), size}; }

/// The sim's own address of device memory. No check: callers ask find_memory first.
ASCEND_SIM_EXPORT unsigned char* alias(const void* device_address);

/// The device that an address belongs to, allocated or not; nothing for the host's memory.
std::optional<int> device_of_address(const void* p);

/// Memory of one device. Thread rule: the caller holds the runtime's lock.
class DeviceMemory {
 public:
  DeviceMemory(int device, size_t capacity);
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory();

  /// 64-byte aligned, every byte 0xFF (NaN in each float type); `reserved` counts against the
  /// capacity. Null if there is none.
  void* allocate(size_t size, size_t reserved);
  /// The allocation that starts at p, if there is one.
  std::optional<Range> allocation(const void* p) const;
  /// Gives it back; its bytes become 0xFF again.
  void release(const void* p);

  /// Whether all of `range` is memory that the program owns: within one allocation or mapped pages.
  bool owns(const Range& range) const;
  size_t capacity() const { return capacity_; }
  size_t used() const { return used_; }

  // Virtual memory in two steps: addresses, and pages that are mapped to them.
  static constexpr size_t kPage = size_t{2} << 20;
  void* reserve(size_t size);
  bool release_reserved(const void* p);
  /// A handle of so many bytes of pages; null if there are not so many, or no whole pages.
  void* make_physical(size_t size);
  /// False if it is no handle of this device, or still mapped.
  bool free_physical(void* handle);
  bool map(void* at, size_t size, size_t offset, void* handle);
  std::optional<Range> mapping(const void* at) const;
  void unmap(void* at);

 private:
  bool reserved_contains(const Range& range) const;

  struct Physical {
    int fd = -1;
    size_t size = 0;
    bool mapped = false;
  };
  struct Block {
    size_t size = 0;      // as asked for
    size_t reserved = 0;  // as taken
  };
  struct Mapping {
    size_t size = 0;
    Physical* physical = nullptr;
  };
  size_t capacity_;
  size_t used_ = 0;
  uintptr_t heap_;  // device addresses of allocate
  size_t heap_size_;
  uintptr_t pages_;                   // device addresses of reserve
  std::map<uintptr_t, size_t> free_;  // of the heap, by address, joined with neighbours
  std::map<uintptr_t, Block> blocks_;
  std::map<uintptr_t, size_t> reserved_;
  std::map<uintptr_t, Mapping> mapped_;
  std::map<void*, std::unique_ptr<Physical>> physicals_;  // by handle, which is their address
};

/// Pinned host memory: from aclrtMallocHost (owned) and aclrtHostRegister (not owned). Thread rule:
/// the caller holds the runtime's lock.
class PinnedMemory {
 public:
  void* allocate(size_t size);
  void add(void* p, size_t size);
  std::optional<Range> find(const void* start, bool owned) const;
  void release(const void* start);
  bool owns(const Range& range) const;

 private:
  struct Block {
    size_t size = 0;
    std::unique_ptr<unsigned char[]> owned;  // with room to align
  };
  std::map<uintptr_t, Block> blocks_;
};

}  // namespace ascend_sim
