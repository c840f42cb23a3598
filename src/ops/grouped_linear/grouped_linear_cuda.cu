// The experts' products: how many rows each has stands in the device's memory. The experts' tiles of rows are counted
// one expert after the other, and block n has the nth: so there are about as many blocks as rows need, not as they
// would if all were any expert's.
#include "ops/cuda/device_product.h"
#include "ops/cuda/device_tensor_product.h"
#include "ops/grouped_linear/grouped_linear_cuda.h"

namespace ferry::ops {

/// Read anew each time that it is asked for.
__device__ inline int offset(const int32_t* at) {
  int32_t x;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(x) : "l"(__cvta_generic_to_global(at)));
  return x;
}

/// An expert, and the first of its rows that a block makes.
struct ExpertRows {
  int expert;  // -1: none has rows left for the block
  int row;
};

/// Those of the block among all tiles of `tile` rows. The whole warp must be here, as lanes `l`: each counts the tiles
/// of an expert.
template <int tile>
__device__ __forceinline__ ExpertRows rows_of_block(const GroupedMatmulCuda& c, int l) {
  constexpr uint32_t kAll = 0xFFFFFFFFu;
  constexpr int kWarp = 32;
  // Tiles before the block's, of the experts that are still to be counted.
  int left = static_cast<int>(blockIdx.x);
#pragma unroll 1
  for (int first = 0; first < c.experts; first += kWarp) {
    const int expert = first + l;
    const int rows =
        expert < c.experts ? offset(c.offsets + expert + 1) - offset(c.offsets + expert) : 0;
    const int tiles = (rows + tile - 1) / tile;
    int upto = tiles;  // of this lane's expert and those before it
#pragma unroll
    for (int apart = 1; apart < kWarp; apart *= 2) {
      const int before = __shfl_up_sync(kAll, upto, apart);
      if (l >= apart) upto += before;
    }
    // Lanes whose experts' tiles are all before the block's: the next one has it.
    const int passed = __popc(__ballot_sync(kAll, upto <= left));
    if (passed < kWarp) {
      const int row = __shfl_sync(kAll, (left - (upto - tiles)) * tile, passed);
      return {first + passed, row};
    }
    left -= __shfl_sync(kAll, upto, kWarp - 1);
  }
  ExpertRows none;  // its numbers one by one: of a list nvcc makes a variable in memory
  none.expert = -1;
  none.row = 0;
  return none;
}

/// The block's part of its expert's product: `tile` rows are its first ones, m those that there are from there on; none
/// if there is nothing for it to make.
template <int tile>
__device__ __forceinline__ MatmulCuda of_expert(const GroupedMatmulCuda& c,
                                                bool rows_are_k,
                                                uint32_t thread) {
  MatmulCuda p = c.product;
  ExpertRows its;
  if (rows_are_k)  // all experts have as many tiles
    its = {static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x) * tile};
  else
    its = rows_of_block<tile>(c, static_cast<int>(thread % 32));
  if (its.expert < 0) {
    p.m = 0;
    return p;
  }
  const int64_t expert = its.expert, row = its.row, begin = offset(c.offsets + expert),
                rows = offset(c.offsets + expert + 1) - begin;
  const int64_t a_size = p.a_bf16 != 0 ? 2 : 4, b_size = p.b_bf16 != 0 ? 2 : 4,
                c_size = p.c_bf16 != 0 ? 2 : 4;
  const auto advance = [](const void* at, int64_t bytes) {
    return static_cast<const char*>(at) + bytes;
  };
  if (rows_are_k) {
    p.k = rows;
    p.m -= row;
    p.a = advance(p.a, (begin * p.a_k + row * p.a_row) * a_size);
    p.b = advance(p.b, begin * p.b_k * b_size);
    p.c = static_cast<char*>(p.c) + (expert * p.c_batch + row * p.c_row) * c_size;
  } else {
    p.m = rows - row;
    p.a = advance(p.a, (begin + row) * p.a_row * a_size);
    p.b = advance(p.b, expert * p.b_batch * b_size);
    p.c = static_cast<char*>(p.c) + (begin + row) * p.c_row * c_size;
  }
  return p;
}

template <bool bf16>
__device__ void grouped(const GroupedMatmulCuda& c) {
  const MatmulCuda p =
      of_expert<kMatmulTile>(c, c.rows_are_k != 0, threadIdx.y * kMatmulThreads + threadIdx.x);
  if (p.m > 0) product<bf16>(p, 0, 0);
}

extern "C" __global__ void grouped_matmul_f32(const GroupedMatmulCuda c) { grouped<false>(c); }
extern "C" __global__ void grouped_matmul_bf16(const GroupedMatmulCuda c) { grouped<true>(c); }

template <Lies a, Lies b>
__device__ __forceinline__ void grouped_tensor(const GroupedMatmulCuda& c) {
  // Rows lie so for their sums alone, and k for all else: what is known here takes no registers.
  const bool rows_are_k = a == Lies::kAnyhow ? c.rows_are_k != 0 : a == Lies::kAlongRows;
  const auto its = [&] { return of_expert<kTensorM>(c, rows_are_k, threadIdx.x); };
  if (its().m <= 0) return;
  tensor_product<a, b, kTensorM>(its, 0, 0);
}

#define FERRY_GROUPED_KERNEL(name, a, b)                          \
  extern "C" __global__ void __launch_bounds__(kTensorThreads, 2) \
      name(const GroupedMatmulCuda c) {                           \
    grouped_tensor<a, b>(c);                                      \
  }
FERRY_GROUPED_KERNEL(grouped_tensor_kk, Lies::kAlongK, Lies::kAlongK)
FERRY_GROUPED_KERNEL(grouped_tensor_kr, Lies::kAlongK, Lies::kAlongRows)
FERRY_GROUPED_KERNEL(grouped_tensor_rr, Lies::kAlongRows, Lies::kAlongRows)
FERRY_GROUPED_KERNEL(grouped_tensor_any, Lies::kAnyhow, Lies::kAnyhow)

}  // namespace ferry::ops
