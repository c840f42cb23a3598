#include "device/cpu/cpu_device.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "base/units.h"
#include "device/cpu/poison.h"

namespace ferry {
namespace {

constexpr size_t kFence = 64;
constexpr unsigned char kFenceByte = 0xA5;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMappedBytesMin = size_t{128} << 10;  // of blocks that get pages of their own
constexpr size_t kSpareBytes = size_t{16} << 20;  // held beyond the most that was in use at once

std::atomic<int> g_guards{0};
std::atomic<int> g_violations{0};

// Under AddressSanitizer blocks are of the size that was asked for, so that the first byte beyond is
// a fence.
#if defined(FERRY_CPU_POISON)
constexpr bool kPoison = true;
void forbid(const void* p, size_t bytes) { ASAN_POISON_MEMORY_REGION(p, bytes); }
void allow(const void* p, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(p, bytes); }
#else
constexpr bool kPoison = false;
void forbid(const void*, size_t) {}
void allow(const void*, size_t) {}
#endif

/// A block's size with the fences.
size_t whole_block(size_t bytes) {
  return (kPoison ? bytes : pool_block_bytes(bytes)) + 2 * kFence;
}

class CpuDevice final : public Device, public Stream {
 public:
  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override { return "cpu"; }
  std::string describe() const override {
    const int threads = cpu_pool().threads();
    return fmt::format("cpu, {} thread{}", threads, threads == 1 ? "" : "s");
  }

  void* allocate(size_t bytes) override {
    const bool guarded = g_guards.load(std::memory_order_relaxed) > 0;
    const size_t whole = whole_block(bytes);
    const std::lock_guard lock(mutex_);
    char* block = take(whole);
    use_.live_bytes += whole;
    if (use_.live_bytes > use_.peak_bytes) use_.peak_bytes = use_.live_bytes;
    // The front fence records whether the block is guarded, so that deallocate need not guess.
    std::memset(block, guarded ? kFenceByte : 0, kFence);
    if (guarded) {
      std::memset(block + kFence, 0xFF, bytes);
      std::memset(block + kFence + bytes, kFenceByte, whole - kFence - bytes);
    }
    forbid(block, kFence);
    forbid(block + kFence + bytes, whole - kFence - bytes);
    return block + kFence;
  }

  void deallocate(void* p, size_t bytes) override {
    char* block = static_cast<char*>(p) - kFence;
    const size_t whole = whole_block(bytes);
    allow(block, whole);
    check_fences(block, bytes, whole);
    const std::lock_guard lock(mutex_);
    use_.live_bytes -= whole;
    forbid(block, whole);
    give(block, whole);
  }

  MemoryUse memory_use() const override {
    const std::lock_guard lock(mutex_);
    return use_;
  }
  void reset_peak() override {
    const std::lock_guard lock(mutex_);
    use_.peak_bytes = use_.live_bytes;
  }

  // An empty tensor's host side may be a null pointer, which memcpy must not be given.
  void copy_from_host(void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void copy_to_host(void* to, const void* from, size_t bytes) override {
    synchronize();
    copy(to, from, bytes);
  }
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0) std::memmove(to, from, bytes);
  }
  void fill_zero(void* p, size_t bytes) override {
    if (bytes > 0) std::memset(p, 0, bytes);
  }

  Stream& stream() override { return *this; }
  Device& device() override { return *this; }

 private:
  void drain() override {}

  /// The smallest free block that does; one that is much too large would be missed where it fits.
  char* take(size_t whole) {
    const auto fit = free_.lower_bound(whole);
    if (fit != free_.end() && fit->first <= (kPoison ? whole : 2 * whole)) {
      char* block = fit->second.back();
      allow(block, whole);
      fit->second.pop_back();
      if (fit->first != whole) larger_[block] = fit->first;
      if (fit->second.empty()) free_.erase(fit);
      return block;
    }
    // Freed blocks are kept for the next step, which asks for the same: getting them from the
    // kernel again costs a quarter of a training step, nearly all of it clearing pages.
    trim(std::max(use_.peak_bytes, use_.live_bytes + whole) + kSpareBytes - whole);
    void* p = from_system(whole);
    if (p == nullptr) {
      trim(0);
      p = from_system(whole);
    }
    if (p == nullptr)
      throw OutOfDeviceMemory("cpu",
                              0,
                              fmt::format("cpu: out of memory asking for {} ({} in use)",
                                          format_bytes(static_cast<double>(whole)),
                                          format_bytes(static_cast<double>(use_.live_bytes))));
    use_.reserved_bytes += whole;
    return static_cast<char*>(p);
  }

  /// nullptr: there is none.
  static void* from_system(size_t whole) {
    if (whole < kMappedBytesMin) {
      void* p = nullptr;
      return ::posix_memalign(&p, 64, whole) == 0 ? p : nullptr;
    }
    void* p = ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    if (whole >= kHugePage) ::madvise(p, whole, MADV_HUGEPAGE);
    return p;
  }

  void give(char* block, size_t whole) {
    const auto larger = larger_.find(block);
    if (larger != larger_.end()) {
      whole = larger->second;
      larger_.erase(larger);
    }
    free_[whole].push_back(block);
    trim(use_.peak_bytes + kSpareBytes);
  }

  /// Returns free blocks, the largest first, until no more than `bytes` are reserved.
  void trim(size_t bytes) {
    while (use_.reserved_bytes > bytes && !free_.empty()) {
      const auto& [whole, blocks] = *free_.rbegin();
      use_.reserved_bytes -= whole;
      allow(blocks.back(), whole);
      if (whole >= kMappedBytesMin)
        ::munmap(blocks.back(), whole);
      else
        std::free(blocks.back());
      free_.rbegin()->second.pop_back();
      if (blocks.empty()) free_.erase(std::prev(free_.end()));
    }
  }

  static void check_fences(const char* block, size_t bytes, size_t whole) {
    const auto is_fence = [](char c) { return static_cast<unsigned char>(c) == kFenceByte; };
    if (g_guards.load(std::memory_order_relaxed) == 0) return;
    bool all = true, none = true;
    for (size_t i = 0; i < kFence; ++i) (is_fence(block[i]) ? none : all) = false;
    if (none) return;  // allocated before the guard
    for (size_t i = kFence + bytes; i < whole; ++i) all = all && is_fence(block[i]);
    if (!all) g_violations.fetch_add(1, std::memory_order_relaxed);
  }

  mutable std::mutex mutex_;
  std::map<size_t, std::vector<char*>> free_;       // by size; no list is empty
  std::unordered_map<const char*, size_t> larger_;  // blocks in use that are larger than asked for
  MemoryUse use_;
};

int threads_from_environment() {
  const char* text = std::getenv("FERRY_THREADS");
  if (text == nullptr || *text == '\0') return 0;
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end != '\0' || n < 1 || n > 1024) {
    std::fprintf(stderr, "FERRY_THREADS=%s: must be a number from 1 to 1024\n", text);
    std::exit(2);
  }
  return static_cast<int>(n);
}

std::unique_ptr<ThreadPool>& pool_slot() {
  static auto pool = std::make_unique<ThreadPool>(threads_from_environment());
  return pool;
}

}  // namespace

Device& cpu_device() {
  static auto* device =
      new CpuDevice;  // never destroyed: tensors in static storage may outlive main
  return *device;
}

ThreadPool& cpu_pool() { return *pool_slot(); }

void set_cpu_threads(int threads) { pool_slot() = std::make_unique<ThreadPool>(threads); }

MemoryGuard::MemoryGuard() {
  if (g_guards.fetch_add(1) == 0) g_violations = 0;
}
MemoryGuard::~MemoryGuard() { g_guards.fetch_sub(1); }
int MemoryGuard::violations() const { return g_violations.load(); }

}  // namespace ferry
