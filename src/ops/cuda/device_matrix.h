// The instructions of tensor cores and what feeds them (device code: of *_cuda.cu alone), as PTX ISA has them since
// sm_80. A whole warp executes each together.
#pragma once

#include <cstdint>

#include "ops/cuda/device_math.h"

namespace ferry::ops {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// 16 bytes of shared memory get `bytes` from `from`, and zeros behind them, beside this thread.
/// Both are aligned to 16.
__device__ inline void copy_async(uint32_t to, const void* from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)),
               "r"(bytes)
               : "memory");
}
/// What was copied since the last group is one.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until the thread's copies but those of the last `groups` groups are there.
template <int groups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

/// Four matrices of 8 x 8 numbers of 16 bits: lane l says where row l % 8 of matrix l / 8 lies, and
/// gets two numbers of each: of row l / 4, or of that column if `transposed`.
template <bool transposed>
__device__ inline void load_matrices(uint32_t (&out)[4], uint32_t row) {
  if constexpr (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
}

/// c [16, 8] += a [16, 16] b [16, 8], of bf16, in f32 (docs/numerics.md, "On tensor cores").
__device__ inline void multiply_add(float (&c)[4],
                                    const uint32_t (&a)[4],
                                    uint32_t b0,
                                    uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace ferry::ops
