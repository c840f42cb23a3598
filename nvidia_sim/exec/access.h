// What every access to memory asks, whichever instruction makes it.
#pragma once

#include "exec/warp.h"

namespace nvidia_sim {

[[noreturn]] void misaligned(uint64_t address, uint64_t bytes, int lane);

/// The allocation around the bytes: what this instruction met the last time, if it is that. Throws Violation.
Allocation& allocation_of(
    Warp& w, const Instruction& i, uint64_t at, uint64_t bytes, Access access, int lane);

/// Throws Violation, where a launch is checked, for bytes that nobody wrote.
void require_written(Warp& w, const Allocation& a, uint64_t at, uint64_t bytes, int lane);

/// What `access` does, with the lane in whatever it throws.
template <typename F>
decltype(auto) of_lane(int lane, F&& access) {
  try {
    return access();
  } catch (const Violation& v) {
    throw Violation(v.code(), v.what(), lane);
  }
}

}  // namespace nvidia_sim
