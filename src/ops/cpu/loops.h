// Loops that the CPU kernels share: over lanes, over rows and over element types. They decide who
// computes what, never in which order one element is computed. Include from *_cpu.cc only.
#pragma once

#include "device/cpu/cpu_device.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/simd.h"

namespace ferry::ops::FERRY_TIER {

/// How many lanes a vector has of the elements that are left.
inline int lanes_left(int64_t elements) {
  return static_cast<int>(elements < kLanes ? elements : kLanes);
}

/// f(column, n): whole vectors with n == kLanes, then the tail, if any, with the n that are left.
template <typename F>
inline void for_lanes(int64_t begin, int64_t end, F&& f) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) f(i, kLanes);
  if (i < end) f(i, static_cast<int>(end - i));
}

/// f(row) for each row, in parallel. `elements`: what one row costs; small rows share a task.
template <typename F>
void parallel_rows(int64_t rows, int64_t elements, F&& f) {
  const int64_t together =
      elements >= Rows::kBlockElements ? 1 : Rows::kBlockElements / (elements > 0 ? elements : 1);
  cpu_pool().parallel_for((rows + together - 1) / together, [&](int64_t task, int) {
    const int64_t end = (task + 1) * together < rows ? (task + 1) * together : rows;
    for (int64_t r = task * together; r < end; ++r) f(r);
  });
}

/// f(offsets of each view in elements, i, n) for each vector of elementwise work, in parallel.
template <typename F>
void parallel_lanes(const Rows& rows, F&& f) {
  cpu_pool().parallel_for(rows.blocks(), [&](int64_t block, int) {
    rows.for_block(block, [&](const int64_t* offset, int64_t length) {
      for_lanes(0, length, [&](int64_t i, int n) { f(offset, i, n); });
    });
  });
}

/// f(float{}) or f(bf16_t{}): for generic lambdas that need the element type.
template <typename F>
void with_type(DType dtype, F&& f) {
  if (dtype == DType::kBF16)
    f(bf16_t{});
  else
    f(float{});
}

}  // namespace ferry::ops::FERRY_TIER
