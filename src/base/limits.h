// What this process may use of the machine, as far as the kernel holds it to that: processors
// (affinity, cgroup quotas) and memory (what is free, cgroup limits, ulimit). Containers, batch
// systems and shells set these; cgroups of versions 1 and 2, mixed, nested and seen from inside a
// container are followed.
#pragma once

#include <cstdint>
#include <string>

namespace ferry {

/// Threads that can run at once: the processors of the affinity mask, or the cgroups' quota of
/// processor time if that is less, rounded up; at least 1.
/// `root` is where /proc and /sys are looked for, so that a test may hand in another machine's.
int available_processors(const std::string& root = "/");

/// Memory that can still be had, and what sets the bound, to be read after "1.50 GiB are free": "",
/// " within the limit of cgroup /user.slice", " within ulimit -v".
struct MemoryAvailable {
  uint64_t bytes = 0;
  std::string within;
};

/// Memory that this process can still take without swapping: the machine's, or less where a cgroup
/// above it (page cache that the kernel would give up counts as free) or a ulimit leaves less.
MemoryAvailable memory_available(const std::string& root = "/");

/// Raises the number of files and connections that this process may have open to `wanted`, as far as
/// the hard limit (ulimit -Hn) lets it, and returns how many it may have.
uint64_t raise_open_files(uint64_t wanted);

}  // namespace ferry
