// The matrix product that CUDA kernels share (device code: of *_cuda.cu alone). One float32
// accumulator for each element, in the order of docs/numerics.md: it depends on k alone. A block of
// 16 x 16 threads makes 64 x 64 elements, 16 of each thread, from tiles in shared memory.
#pragma once

#include "ops/cuda/device_math.h"
#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops {

constexpr int kTileK = 16;  // even: a pair of bf16 lies in one tile
constexpr int kEach = kMatmulTile / kMatmulThreads;
constexpr int kPad = 4;  // keeps rows aligned for four floats at a time

/// tile[k][row] of rows from `first`; zeros where there is nothing. Rounded to the type of
/// products.
template <bool bf16>
__device__ void fetch(float (*tile)[kMatmulTile + kPad],
                      const void* from,
                      bool from_bf16,
                      int64_t first,
                      int64_t rows,
                      int64_t row_stride,
                      int64_t begin,
                      int64_t depth,
                      int64_t k_stride) {
  const int thread = static_cast<int>(threadIdx.y * kMatmulThreads + threadIdx.x);
#pragma unroll
  for (int e = 0; e < kTileK * kMatmulTile / (kMatmulThreads * kMatmulThreads); ++e) {
    const int at = thread + e * kMatmulThreads * kMatmulThreads;
    // Neighbouring threads read neighbouring places, whichever way the matrix lies.
    const int row = k_stride == 1 ? at / kTileK : at % kMatmulTile;
    const int k = k_stride == 1 ? at % kTileK : at / kMatmulTile;
    float x = 0;
    if (first + row < rows && begin + k < depth)
      x = load(from, from_bf16, (first + row) * row_stride + (begin + k) * k_stride);
    if (bf16 && !from_bf16) x = __uint_as_float(static_cast<uint32_t>(to_bf16(x)) << 16);
    tile[k][row] = x;
  }
}

/// The block's tile of one product, of `batch` of those that there are, from row `row` on. All threads of the block.
template <bool bf16>
__device__ void product(const MatmulCuda& c, int64_t batch, int64_t row) {
  __shared__ alignas(16) float a[kTileK][kMatmulTile + kPad], b[kTileK][kMatmulTile + kPad];
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kMatmulTile;
  const int64_t a_size = c.a_bf16 ? 2 : 4, b_size = c.b_bf16 ? 2 : 4;
  const void* const a_from = static_cast<const char*>(c.a) + batch * c.a_batch * a_size;
  const void* const b_from = static_cast<const char*>(c.b) + batch * c.b_batch * b_size;
  // f(i, j, place in c): this thread's elements that there are.
  const auto for_mine = [&](auto&& f) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        const int64_t r = row + threadIdx.y * kEach + i, n = column + threadIdx.x * kEach + j;
        if (r < c.m && n < c.n) f(i, j, batch * c.c_batch + r * c.c_row + n);
      }
  };
  float sum[kEach][kEach] = {};
  if (c.accumulate != 0)
    for_mine([&](int i, int j, int64_t at) { sum[i][j] = static_cast<const float*>(c.c)[at]; });
  for (int64_t begin = 0; begin < c.k; begin += kTileK) {
    fetch<bf16>(a, a_from, c.a_bf16 != 0, row, c.m, c.a_row, begin, c.k, c.a_k);
    fetch<bf16>(b, b_from, c.b_bf16 != 0, column, c.n, c.b_column, begin, c.k, c.b_k);
    __syncthreads();
    const int64_t left = c.k - begin;
    const int depth = static_cast<int>(left < kTileK ? left : kTileK);
    const auto step = [&](int k) {
      const float4 x = *reinterpret_cast<const float4*>(&a[k][threadIdx.y * kEach]);
      const float4 y = *reinterpret_cast<const float4*>(&b[k][threadIdx.x * kEach]);
      const float of_a[kEach] = {x.x, x.y, x.z, x.w}, of_b[kEach] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < kEach; ++i)
#pragma unroll
        for (int j = 0; j < kEach; ++j) sum[i][j] = __fmaf_rn(of_a[i], of_b[j], sum[i][j]);
    };
    if (bf16)
      for (int k = 0; k < depth; k += 2) {  // the odd one of a pair first; behind the end is a zero
        step(k + 1);
        step(k);
      }
    else
      for (int k = 0; k < depth; ++k) step(k);
    __syncthreads();
  }
  for_mine([&](int i, int j, int64_t at) { store(c.c, c.c_bf16 != 0, at, sum[i][j]); });
}

}  // namespace ferry::ops
