#include "device/stand_in_device.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

namespace ferry {

std::string StandInDevice::name() const { return fmt::format("{} (rehearsed)", to_string(kind_)); }

void* StandInDevice::allocate(size_t bytes) {
  void* p = ::mmap(nullptr,
                   std::max<size_t>(bytes, 1),
                   PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1,
                   0);
  if (p == MAP_FAILED)
    throw DeviceError(
        name(), 0, fmt::format("no addresses for {} bytes: is ulimit -v set?", bytes));
  use_.live_bytes += bytes;
  use_.peak_bytes = std::max(use_.peak_bytes, use_.live_bytes);
  return p;
}

void StandInDevice::deallocate(void* p, size_t bytes) {
  ::munmap(p, std::max<size_t>(bytes, 1));
  use_.live_bytes -= bytes;
}

void StandInDevice::copy_to_host(void* host, const void*, size_t bytes) {
  std::fill_n(static_cast<char*>(host), bytes, '\0');
}

}  // namespace ferry
