// Copies that a warp's threads have begun and not waited for.
#pragma once

#include <cstdint>

namespace nvidia_sim {

struct Warp;

struct AsyncCopy {
  int lane = 0;
  uint64_t group = 0;  // of the lane's: counted by commit_group
  uint32_t to = 0;     // shared memory
  uint32_t bytes = 0;
  uint64_t from = 0;
  uint32_t read = 0;  // bytes; the rest becomes zero
};

/// wait_all, in place of a number of groups.
inline constexpr uint64_t kNone = UINT64_MAX;

/// The lanes' copies land, but for the last groups that may stay on their way.
void wait_for_copies(Warp& w, uint32_t lanes, uint64_t groups_on_their_way);

}  // namespace nvidia_sim
