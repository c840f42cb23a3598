// What CUDA kernels share (device code: of *_cuda.cu alone): numbers in memory, exp and log, sums
// of sixteen lanes. The operations and their order are those of ops/cpu/simd.h, so that the bits
// are (docs/numerics.md): -fmad=false fuses nothing that is not written as an fma, -ftz=true
// flushes subnormal numbers.
#pragma once

#include <cstdint>

namespace ferry::ops {

using bf16_t = uint16_t;

constexpr int kLanes = 16;  // half a warp: each sums every sixteenth element of a row

__device__ inline float load(const float* p) { return *p; }
__device__ inline float load(const bf16_t* p) {
  return __uint_as_float(static_cast<uint32_t>(*p) << 16);
}

__device__ inline bf16_t to_bf16(float x) {
  const uint32_t bits = __float_as_uint(x);
  // The conversion itself keeps subnormal numbers.
  const float flushed =
      __uint_as_float((bits & 0x7FFFFFFFu) < 0x00800000u ? bits & 0x80000000u : bits);
  bf16_t out;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(flushed));
  return out;
}
__device__ inline void store(float* p, float x) { *p = x; }
__device__ inline void store(bf16_t* p, float x) { *p = to_bf16(x); }

/// Of an operand whose type is known while it runs.
__device__ inline float load(const void* p, bool bf16, int64_t at) {
  return bf16 ? load(static_cast<const bf16_t*>(p) + at) : load(static_cast<const float*>(p) + at);
}
__device__ inline void store(void* p, bool bf16, int64_t at, float x) {
  if (bf16)
    store(static_cast<bf16_t*>(p) + at, x);
  else
    store(static_cast<float*>(p) + at, x);
}

/// e^x as the CPU's kernels have it.
__device__ inline float exp(float x) {
  const float low = -87.3f;
  const float raised = low > x ? low : x;
  const float clamped = 88.3f < raised ? 88.3f : raised;
  const float n = rintf(clamped * 1.44269504f);
  float r = __fmaf_rn(n, -0.693359375f, clamped);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.3888889e-3f;
  p = __fmaf_rn(p, r, 8.3333338e-3f);
  p = __fmaf_rn(p, r, 4.1666668e-2f);
  p = __fmaf_rn(p, r, 1.6666667e-1f);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  const float power = __uint_as_float(static_cast<uint32_t>(__float2int_rn(n) + 127) << 23);
  return x < low ? 0.0f : p * power;
}

/// Natural logarithm of positive normal x, as the CPU's kernels have it.
__device__ inline float log(float x) {
  const int32_t bits = __float_as_int(x) - 0x3F3504F3;
  const float e = static_cast<float>(bits >> 23);
  const float f = __int_as_float((bits & 0x007FFFFF) + 0x3F3504F3) - 1.0f;
  float p = 7.0376836292e-2f;
  p = __fmaf_rn(p, f, -1.1514610310e-1f);
  p = __fmaf_rn(p, f, 1.1676998740e-1f);
  p = __fmaf_rn(p, f, -1.2420140846e-1f);
  p = __fmaf_rn(p, f, 1.4249322787e-1f);
  p = __fmaf_rn(p, f, -1.6668057665e-1f);
  p = __fmaf_rn(p, f, 2.0000714765e-1f);
  p = __fmaf_rn(p, f, -2.4999993993e-1f);
  p = __fmaf_rn(p, f, 3.3333331174e-1f);
  const float f2 = f * f;
  float y = p * f2 * f;
  y = __fmaf_rn(e, -2.12194440e-4f, y);
  y = __fmaf_rn(f2, -0.5f, y);
  return __fmaf_rn(e, 0.693359375f, f + y) + (x - x);
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + exp(0.0f - x)); }

/// The sum of sixteen lanes as the fixed tree, in each of them. The whole warp must be here.
template <typename T>
__device__ inline T sum_lanes(T x) {
#pragma unroll
  for (int width = kLanes / 2; width >= 1; width /= 2)
    x = x + __shfl_xor_sync(0xFFFFFFFFu, x, width, kLanes);
  return x;
}

/// Which row sixteen lanes have, where each has a row of its own, and who of them this thread is.
__device__ inline int64_t lanes_row() {
  return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
}
__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kLanes; }

}  // namespace ferry::ops
