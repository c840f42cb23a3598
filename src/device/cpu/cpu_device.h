// The host as a device: a caching allocator and a stream that runs each launch before it returns.
#pragma once

#include "base/threads.h"
#include "device/device.h"

namespace ferry {

Device& cpu_device();

/// The threads that CPU kernels share. FERRY_THREADS sets their number, else one per processor.
ThreadPool& cpu_pool();

/// Replaces the pool. Not while a kernel runs.
void set_cpu_threads(int threads);

/// While one exists, each CPU allocation is filled with NaN (0xFF) and fenced by guard bytes, which
/// are checked when it is freed. violations() counts overwritten fences. For tests and doctor.
class MemoryGuard {
 public:
  MemoryGuard();
  ~MemoryGuard();
  MemoryGuard(const MemoryGuard&) = delete;
  MemoryGuard& operator=(const MemoryGuard&) = delete;
  int violations() const;
};

}  // namespace ferry
