// What this machine has left: for refusing what cannot fit before starting it.
#pragma once

#include <cstdint>
#include <string>

namespace ferry {

/// Memory that a process can still take without swapping: the system's, or less under a cgroup
/// limit.
uint64_t memory_available_bytes();

/// Most memory this process ever had resident (VmHWM), and what it has now (VmRSS).
uint64_t memory_peak_bytes();
uint64_t memory_resident_bytes();

/// "Intel(R) Xeon(R) Processor" or the like, for reports.
std::string processor_name();

}  // namespace ferry
