#include "runtime/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime/settings.h"

namespace ascend_sim {
namespace {

constexpr int kDevicesMax = 8;
constexpr size_t kDeviceSpan = size_t{64} << 30;  // addresses of one device: half heap, half pages
constexpr unsigned char kPoison = 0xFF;

/// Two ranges of addresses of the same size, nothing in them yet.
struct Spans {
  uintptr_t device = 0;
  uintptr_t alias = 0;
};

void* map_nothing(size_t size) {
  void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) violation("there are no addresses left for device memory");
  return p;
}

const Spans& spans() {
  static const Spans both = {
      reinterpret_cast<uintptr_t>(map_nothing(kDevicesMax * kDeviceSpan)),
      reinterpret_cast<uintptr_t>(map_nothing(kDevicesMax * kDeviceSpan)),
  };
  return both;
}

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

/// Makes the sim's side of [device, device + size) what mmap's arguments say.
void remap(uintptr_t device, size_t size, int protection, int flags, int fd, size_t offset) {
  unsigned char* at = alias(pointer(device));
  if (mmap(at, size, protection, flags | MAP_FIXED, fd, static_cast<off_t>(offset)) != at)
    violation("mapping device memory failed");
}

/// The entry of `ranges` (start -> value) whose start is at or before `at`.
template <class Map>
auto at_or_before(Map& ranges, uintptr_t at) {
  auto it = ranges.upper_bound(at);
  return it == ranges.begin() ? ranges.end() : std::prev(it);
}

}  // namespace

unsigned char* alias(const void* device_address) {
  return reinterpret_cast<unsigned char*>(reinterpret_cast<uintptr_t>(device_address) -
                                          spans().device + spans().alias);
}

std::optional<int> device_of_address(const void* p) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  if (at < spans().device || at >= spans().device + kDevicesMax * kDeviceSpan) return std::nullopt;
  return static_cast<int>((at - spans().device) / kDeviceSpan);
}

DeviceMemory::DeviceMemory(int device, size_t capacity)
    : capacity_(capacity),
      heap_(spans().device + static_cast<size_t>(device) * kDeviceSpan),
      // Twice the capacity of addresses: capacity is what runs out, not holes.
      heap_size_(round_up(2 * capacity, kPage)),
      pages_(heap_ + kDeviceSpan / 2) {
  remap(heap_,
        heap_size_,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
        -1,
        0);
  free_[heap_] = heap_size_;
}

DeviceMemory::~DeviceMemory() {
  for (const auto& [handle, physical] : physicals_) close(physical->fd);
  remap(heap_, kDeviceSpan, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void* DeviceMemory::allocate(size_t size, size_t reserved) {
  if (reserved > capacity_ - used_) return nullptr;
  const size_t span = round_up(reserved, 64);
  const auto it =
      std::find_if(free_.begin(), free_.end(), [&](const auto& f) { return f.second >= span; });
  if (it == free_.end()) return nullptr;
  const uintptr_t at = it->first;
  const size_t rest = it->second - span;
  free_.erase(it);
  if (rest > 0) free_[at + span] = rest;
  blocks_[at] = {size, reserved};
  used_ += reserved;
  std::memset(alias(pointer(at)), kPoison, span);
  return pointer(at);
}

std::optional<Range> DeviceMemory::allocation(const void* p) const {
  const auto it = blocks_.find(reinterpret_cast<uintptr_t>(p));
  if (it == blocks_.end()) return std::nullopt;
  return Range{it->first, it->second.size};
}

void DeviceMemory::release(const void* p) {
  const auto it = blocks_.find(reinterpret_cast<uintptr_t>(p));
  uintptr_t begin = it->first;
  size_t span = round_up(it->second.reserved, 64);
  used_ -= it->second.reserved;
  blocks_.erase(it);
  std::memset(alias(pointer(begin)), kPoison, span);
  // Whole pages go back to the system; the next owner finds them poisoned again by allocate.
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = round_up(begin, page);
  const uintptr_t last = (begin + span) / page * page;
  if (last > first + (size_t{1} << 20)) madvise(alias(pointer(first)), last - first, MADV_DONTNEED);
  const auto after = free_.find(begin + span);
  if (after != free_.end()) {
    span += after->second;
    free_.erase(after);
  }
  const auto before = at_or_before(free_, begin);
  if (before != free_.end() && before->first + before->second == begin) {
    begin = before->first;
    span += before->second;
  }
  free_[begin] = span;
}

bool DeviceMemory::owns(const Range& range) const {
  const auto block = at_or_before(blocks_, range.begin);
  if (block != blocks_.end() && Range{block->first, block->second.size}.contains(range))
    return true;
  // Mapped pages may lie side by side.
  uintptr_t at = range.begin;
  for (auto it = at_or_before(mapped_, at); it != mapped_.end(); ++it) {
    if (it->first > at || it->first + it->second.size <= at) return false;
    at = it->first + it->second.size;
    if (at >= range.end()) return true;
  }
  return false;
}

void* DeviceMemory::reserve(size_t size) {
  const size_t span = round_up(size, kPage);
  uintptr_t at = pages_;
  for (const auto& [begin, taken] : reserved_) {
    if (begin - at >= span) break;
    at = begin + taken;
  }
  if (at + span > heap_ + kDeviceSpan) return nullptr;
  reserved_[at] = span;
  return pointer(at);
}

bool DeviceMemory::reserved_contains(const Range& range) const {
  const auto it = at_or_before(reserved_, range.begin);
  return it != reserved_.end() && Range{it->first, it->second}.contains(range);
}

bool DeviceMemory::release_reserved(const void* p) {
  const auto it = reserved_.find(reinterpret_cast<uintptr_t>(p));
  if (it == reserved_.end()) return false;
  const Range range{it->first, it->second};
  for (const auto& [begin, mapping] : mapped_)
    if (range.overlaps({begin, mapping.size})) return false;
  reserved_.erase(it);
  return true;
}

void* DeviceMemory::make_physical(size_t size) {
  if (size == 0 || size % kPage != 0 || size > capacity_ - used_) return nullptr;
  auto physical = std::make_unique<Physical>();
  physical->fd = memfd_create("software-ascend", MFD_CLOEXEC);
  if (physical->fd < 0 || ftruncate(physical->fd, static_cast<off_t>(size)) != 0)
    violation("the system has no memory for a device's pages");
  physical->size = size;
  used_ += size;
  void* handle = physical.get();
  physicals_[handle] = std::move(physical);
  return handle;
}

bool DeviceMemory::free_physical(void* handle) {
  const auto it = physicals_.find(handle);
  if (it == physicals_.end() || it->second->mapped) return false;
  used_ -= it->second->size;
  close(it->second->fd);
  physicals_.erase(it);
  return true;
}

bool DeviceMemory::map(void* at, size_t size, size_t offset, void* handle) {
  const Range range = range_of(at, size);
  const auto it = physicals_.find(handle);
  if (it == physicals_.end()) return false;
  Physical& physical = *it->second;
  if (physical.mapped || size == 0 || size % kPage != 0 || offset != 0 || size > physical.size ||
      !reserved_contains(range))
    return false;
  for (const auto& [begin, mapping] : mapped_)
    if (range.overlaps({begin, mapping.size})) return false;
  remap(range.begin, size, PROT_READ | PROT_WRITE, MAP_SHARED, physical.fd, offset);
  std::memset(alias(at), kPoison, size);
  mapped_[range.begin] = {size, &physical};
  physical.mapped = true;
  return true;
}

std::optional<Range> DeviceMemory::mapping(const void* at) const {
  const auto it = mapped_.find(reinterpret_cast<uintptr_t>(at));
  if (it == mapped_.end()) return std::nullopt;
  return Range{it->first, it->second.size};
}

void DeviceMemory::unmap(void* at) {
  const auto it = mapped_.find(reinterpret_cast<uintptr_t>(at));
  remap(it->first, it->second.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  it->second.physical->mapped = false;
  mapped_.erase(it);
}

void* PinnedMemory::allocate(size_t size) {
  constexpr size_t kAlign = 64;
  Block block{size, std::make_unique<unsigned char[]>(size + kAlign)};
  const uintptr_t at = round_up(reinterpret_cast<uintptr_t>(block.owned.get()), kAlign);
  std::memset(pointer(at), kPoison, size);
  blocks_[at] = std::move(block);
  return pointer(at);
}

void PinnedMemory::add(void* p, size_t size) {
  blocks_[reinterpret_cast<uintptr_t>(p)] = {size, nullptr};
}

std::optional<Range> PinnedMemory::find(const void* start, bool owned) const {
  const auto it = blocks_.find(reinterpret_cast<uintptr_t>(start));
  if (it == blocks_.end() || (it->second.owned != nullptr) != owned) return std::nullopt;
  return Range{it->first, it->second.size};
}

void PinnedMemory::release(const void* start) { blocks_.erase(reinterpret_cast<uintptr_t>(start)); }

bool PinnedMemory::owns(const Range& range) const {
  const auto it = at_or_before(blocks_, range.begin);
  return it != blocks_.end() && Range{it->first, it->second.size}.contains(range);
}

}  // namespace ascend_sim
