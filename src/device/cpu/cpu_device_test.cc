#include "device/cpu/cpu_device.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>

#include "device/cpu/poison.h"

namespace ferry {
namespace {

constexpr size_t kMegabyte = size_t{1} << 20;

/// Bytes of address space that this process has.
size_t address_space() {
  std::ifstream file("/proc/self/statm");
  size_t pages = 0;
  file >> pages;
  return pages * 4096;
}

/// From here on the system gives this process no more than `bytes` beyond what it has.
void allow(size_t bytes) {
  rlimit limit{};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = address_space() + bytes;
  setrlimit(RLIMIT_AS, &limit);
}

TEST(CpuDevice, FreedBlockServesTheNextRequestOfItsSize) {
  void* first = cpu_device().allocate(3 * kMegabyte);
  cpu_device().deallocate(first, 3 * kMegabyte);
  void* second = cpu_device().allocate(3 * kMegabyte);
  EXPECT_EQ(first, second);
  cpu_device().deallocate(second, 3 * kMegabyte);
}

#if defined(FERRY_CPU_POISON)
/// Under AddressSanitizer nothing beyond what was asked for can be touched, nor what was freed.
TEST(CpuDevice, PoisonsWhatIsNotGivenOut) {
  auto* p = static_cast<char*>(cpu_device().allocate(100));
  EXPECT_FALSE(__asan_address_is_poisoned(p));
  EXPECT_FALSE(__asan_address_is_poisoned(p + 99));
  EXPECT_TRUE(__asan_address_is_poisoned(p + 100));
  EXPECT_TRUE(__asan_address_is_poisoned(p - 1));
  cpu_device().deallocate(p, 100);
  EXPECT_TRUE(__asan_address_is_poisoned(p));
}
#endif

TEST(CpuDevice, KeptBlocksAreGivenBackBeforeMemoryIsRefused) {
  EXPECT_EXIT(
      {
        // Kept, since as much was in use at once; too large to serve a sixteenth of itself.
        cpu_device().deallocate(cpu_device().allocate(256 * kMegabyte), 256 * kMegabyte);
        allow(8 * kMegabyte);
        cpu_device().allocate(16 * kMegabyte);
        std::exit(7);
      },
      testing::ExitedWithCode(7),
      "");
}

TEST(CpuDevice, RefusalNamesWhatWasAskedForAndWhatIsInUse) {
  EXPECT_EXIT(
      {
        void* held = cpu_device().allocate(8 * kMegabyte);
        allow(64 * kMegabyte);
        try {
          cpu_device().allocate(300 * kMegabyte);
        } catch (const OutOfDeviceMemory& e) {
          std::fprintf(stderr, "%s\n", e.what());
          cpu_device().deallocate(held, 8 * kMegabyte);
          std::exit(7);
        }
        std::exit(1);
      },
      testing::ExitedWithCode(7),
      "out of memory asking for 3.* \\(8.* in use\\)");
}

}  // namespace
}  // namespace ferry
