// What a launch asked of memory, for judging a kernel without a clock (FERRY_NVIDIA_SIM_COUNTERS).
#pragma once

#include <cstdint>

namespace nvidia_sim {

struct Warp;

struct Counters {
  uint64_t instructions = 0;  // of warps
  uint64_t matrix_products = 0;
  uint64_t shared_requests = 0;  // instructions of a warp that reach into shared memory
  /// Passes beyond those that so many bytes need: accesses of 4 bytes or less are made in one, of 8 in two, of 16 in
  /// four (8 lanes each); a bank gives one word of 4 bytes in each, to whoever wants that word.
  uint64_t bank_conflicts = 0;
  uint64_t global_requests = 0;
  uint64_t global_sectors = 0;  // of 32 bytes, of each request
  uint64_t global_bytes_read = 0, global_bytes_written = 0;
};

/// An access of the lanes to shared memory, if somebody counts.
void count_shared(const Warp& w, const uint32_t* addresses, uint32_t lanes, uint32_t bytes);
/// ... to global memory.
void count_global(
    const Warp& w, const uint64_t* addresses, uint32_t lanes, uint32_t bytes, bool written);

}  // namespace nvidia_sim
