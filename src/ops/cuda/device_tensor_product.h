// The product of bf16 matrices on tensor cores that CUDA kernels share (device code: of *_cuda.cu
// alone). Each element is one f32 accumulator, to which mma.m16n8k16 adds sixteen products at a
// time, k ascending, zeros behind the end: the order depends on k alone, whatever the tile, and
// however the operands lie (docs/numerics.md, "On tensor cores").
//
// A block of eight warps makes `tile_m` x 128 elements from tiles of 32 of k in shared memory,
// three of which are on their way or in use. The 16-byte pieces of a tile lie so that the eight
// rows of a matrix that ldmatrix reads, and the eight pieces that copies write at a time, are in
// banks of their own.
#pragma once

#include "ops/cuda/device_matrix.h"
#include "ops/matmul/matmul_cuda.h"

namespace ferry::ops {

/// How an operand lies in memory.
enum class Lies {
  kAlongK,     // bf16, aligned: k contiguous, rows apart by multiples of 8
  kAlongRows,  // ... rows contiguous, k apart
  kAnyhow      // anything: f32 is rounded, elements are fetched one by one
};

constexpr int kTensorK = 32;  // of a tile
constexpr int kTensorSteps = kTensorK / 16;
constexpr int kTensorStages = 3;
constexpr int kPiece = 8;  // elements of 16 bytes

/// A tile of `rows` rows of an operand in shared memory, and this thread's part in filling it.
template <Lies lies, int rows>
class OperandTile {
 public:
  static constexpr int kBytes = rows * kTensorK * 2;
  static constexpr bool kRows = lies == Lies::kAlongRows;

  /// Of `count` rows those from `first` on, of `depth` numbers each.
  __device__ __forceinline__ OperandTile(const void* from,
                                         bool is_bf16,
                                         int64_t first,
                                         int64_t count,
                                         int64_t row_stride,
                                         int64_t depth,
                                         int64_t k_stride)
      : from_(static_cast<const char*>(from) + first * row_stride * (is_bf16 ? 2 : 4)),
        row_stride_(row_stride),
        k_stride_(k_stride),
        rows_(static_cast<int>(count - first < rows ? count - first : rows)),
        depth_(static_cast<int>(depth)),
        is_bf16_(is_bf16) {
    if constexpr (lies != Lies::kAnyhow) {
      const auto thread = static_cast<int>(threadIdx.x);
      from_ += kRows ? (thread / kLine * k_stride + thread % kLine * kPiece) * 2
                     : (thread / kLine * row_stride + thread % kLine * kPiece) * 2;
    }
  }

  /// Begins to fill the tile with the next numbers of k.
  __device__ __forceinline__ void fill_next(uint32_t tile) {
    if constexpr (lies == Lies::kAnyhow)
      fill_anyhow(tile);
    else
      fill_async(tile);
    depth_ -= kTensorK;
    // What lies along k, or along rows, is bf16, one element beside the other.
    from_ += kTensorK * (lies == Lies::kAlongK ? 1 : k_stride_) *
             (lies != Lies::kAnyhow || is_bf16_ ? 2 : 4);
  }

  /// Where piece `piece` of line `line` lies: a line is a row, or one k of all rows.
  __device__ static __forceinline__ uint32_t place(int line, int piece) {
    if constexpr (lies == Lies::kAlongRows)
      return static_cast<uint32_t>(line * rows * 2 + ((piece ^ (line & 7)) << 4));
    else
      return static_cast<uint32_t>(line * kTensorK * 2 + ((piece ^ (line >> 1 & 3)) << 4));
  }

  /// What lane `l` of a warp knows of where its rows of matrices lie: of four for 16 rows and 16 of
  /// k, those of the first 8 rows and of the second, for the first 8 of k, then for the second; or,
  /// if `k_first`, both of k, then the next rows.
  __device__ static __forceinline__ uint32_t lane_place(int l, bool k_first) {
    const int which = l / 8, k_half = k_first ? which % 2 : which / 2,
              row_half = k_first ? which / 2 : which % 2;
    return kRows ? place(k_half * 8 + l % 8, row_half) : place(row_half * 8 + l % 8, k_half);
  }
  /// ... its row of the four for rows from `row`, a multiple of 16, and k from 16 * `step`. The
  /// pieces of 16 rows lie alike, so that nothing is added to a piece's number that is not a bit of
  /// its own.
  __device__ static __forceinline__ uint32_t matrices(uint32_t lane, int row, int step) {
    return static_cast<uint32_t>(
        kRows ? step * 16 * rows * 2 +
                    static_cast<int>(lane ^ static_cast<uint32_t>(row / kPiece << 4))
              : row * kTensorK * 2 + static_cast<int>(lane ^ static_cast<uint32_t>(step << 5)));
  }

 private:
  static constexpr int kPieces = rows * kTensorK / kPiece;
  static constexpr int kLine = kRows ? rows / kPiece : kTensorK / kPiece;  // pieces of a line

  __device__ __forceinline__ void fill_async(uint32_t tile) const {
    constexpr int kLines = kTensorThreads / kLine;  // that all threads fill at a time
    const int line = static_cast<int>(threadIdx.x) / kLine,
              piece = static_cast<int>(threadIdx.x) % kLine;
#pragma unroll
    for (int n = 0; n < (kPieces + kTensorThreads - 1) / kTensorThreads; ++n) {
      const int its = line + n * kLines;
      if (kPieces % kTensorThreads != 0 && its * kLine + piece >= kPieces) break;
      const int left = (kRows ? rows_ : depth_) - piece * kPiece;
      const int elements = its < (kRows ? depth_ : rows_) ? min(max(left, 0), kPiece) : 0;
      copy_async(tile + place(its, piece),
                 from_ + n * kLines * (kRows ? k_stride_ : row_stride_) * 2,
                 elements * 2);
    }
  }

  __device__ __forceinline__ uint32_t bits(int row, int k) const {
    if (row >= rows_ || k >= depth_) return 0;
    const int64_t at = row * row_stride_ + k * k_stride_;
    // What is bf16 already comes as it is, numbers below the least normal one included, as by a copy.
    return is_bf16_ ? reinterpret_cast<const bf16_t*>(from_)[at]
                    : to_bf16(reinterpret_cast<const float*>(from_)[at]);
  }

  __device__ __forceinline__ void fill_anyhow(uint32_t tile) const {
    constexpr int kPairs = kTensorK / 2;
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < rows * kPairs; at += kTensorThreads) {
      // Neighbouring threads read neighbouring places, and write to banks of their own.
      const int row = k_stride_ == 1 ? at / kPairs : at / 4 % rows;
      const int pair = k_stride_ == 1 ? at % kPairs : at / (4 * rows) * 4 + at % 4;
      const uint32_t two = bits(row, pair * 2) | bits(row, pair * 2 + 1) << 16;
      asm volatile("st.shared.u32 [%0], %1;" ::"r"(tile + place(row, pair / 4) + pair % 4 * 4),
                   "r"(two)
                   : "memory");
    }
  }

  const char* from_;  // what comes next: the tile's, or of the first piece that this thread copies
  int64_t row_stride_, k_stride_;
  int rows_, depth_;  // that there are
  bool is_bf16_;
};

/// Two elements beside each other, of which the second may not be there.
__device__ inline void store_two(void* c, bool bf16, int64_t at, float2 x, bool both) {
  const bool together = both && at % 2 == 0 && reinterpret_cast<uintptr_t>(c) % 8 == 0;
  if (!bf16) {
    float* const to = static_cast<float*>(c) + at;
    if (together) {
      *reinterpret_cast<float2*>(to) = x;
      return;
    }
    to[0] = x.x;
    if (both) to[1] = x.y;
    return;
  }
  bf16_t* const to = static_cast<bf16_t*>(c) + at;
  if (together) {
    *reinterpret_cast<uint32_t*>(to) = to_bf16(x.x) | static_cast<uint32_t>(to_bf16(x.y)) << 16;
    return;
  }
  to[0] = to_bf16(x.x);
  if (both) to[1] = to_bf16(x.y);
}

/// The block's tile of one product, from row `row` on, of `batch` of those that there are. All threads of the block.
/// `problem` says which, and is asked again for the way out, so that it need not stay in registers.
template <Lies a_lies, Lies b_lies, int tile_m, typename Problem, typename Row>
__device__ __forceinline__ void tensor_product(Problem&& problem, Row row, int64_t batch) {
  using A = OperandTile<a_lies, tile_m>;
  using B = OperandTile<b_lies, kTensorN>;
  constexpr int kStageBytes = A::kBytes + B::kBytes;
  constexpr int kWarpsM = tile_m >= 64 ? 2 : 1, kWarpsN = kTensorThreads / 32 / kWarpsM;
  constexpr int kWarpM = tile_m / kWarpsM, kWarpN = kTensorN / kWarpsN;
  constexpr int kOfM = kWarpM / 16, kOfN = kWarpN / 8;  // matrices of a warp
  constexpr int kLine = kTensorN + 8;  // floats: four rows' pairs of f32 are in banks of their own
  static_assert(kTensorStages * kStageBytes <= 48 << 10 && kOfN % 2 == 0);
  static_assert(kWarpM * kLine * 4 <= kTensorStages * kStageBytes);
  __shared__ alignas(128) unsigned char stages[kTensorStages * kStageBytes];
  const uint32_t shared = shared_address(stages);
  const int warp = static_cast<int>(threadIdx.x) / 32, l = static_cast<int>(threadIdx.x) % 32;
  const int warp_row = warp % kWarpsM, warp_m = warp_row * kWarpM, warp_n = warp / kWarpsM * kWarpN;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kTensorN;
  const MatmulCuda c = problem();
  const int64_t a_size = c.a_bf16 != 0 ? 2 : 4, b_size = c.b_bf16 != 0 ? 2 : 4;
  A a(static_cast<const char*>(c.a) + batch * c.a_batch * a_size,
      c.a_bf16 != 0,
      row,
      c.m,
      c.a_row,
      c.k,
      c.a_k);
  B b(static_cast<const char*>(c.b) + batch * c.b_batch * b_size,
      c.b_bf16 != 0,
      column,
      c.n,
      c.b_column,
      c.k,
      c.b_k);

  float sums[kOfM][kOfN][4] = {};
  // The results on their way out, and in: those of the warps of one row after the other pass through shared memory,
  // so that whole lines are read and written. f(place in c, of two elements; how many of them are
  // there; where).
  float* const lines = reinterpret_cast<float*>(stages);
  const auto for_lines = [&](const MatmulCuda& c, int of_row, auto&& f) {
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x); at < kWarpM * kTensorN / 2; at += kTensorThreads) {
      const int line = at / (kTensorN / 2), pair = at % (kTensorN / 2) * 2;
      const int64_t r = row + of_row * kWarpM + line, n = column + pair;
      const int there = r >= c.m || n >= c.n ? 0 : n + 1 < c.n ? 2 : 1;
      f(batch * c.c_batch + r * c.c_row + n,
        there,
        reinterpret_cast<float2*>(lines + line * kLine + pair));
    }
  };
  // f(two sums, where)
  const auto for_sums = [&](auto&& f) {
#pragma unroll
    for (int i = 0; i < kOfM; ++i)
#pragma unroll
      for (int j = 0; j < kOfN; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          f(&sums[i][j][h * 2],
            reinterpret_cast<float2*>(lines + (i * 16 + h * 8 + l / 4) * kLine + warp_n + j * 8 +
                                      l % 4 * 2));
  };
  if (c.accumulate != 0) {
#pragma unroll 1
    for (int of_row = 0; of_row < kWarpsM; ++of_row) {
      for_lines(c, of_row, [&](int64_t at, int there, float2* to) {
        *to = {there > 0 ? static_cast<const float*>(c.c)[at] : 0,
               there > 1 ? static_cast<const float*>(c.c)[at + 1] : 0};
      });
      __syncthreads();
      if (of_row == warp_row)
        for_sums([&](float* sum, const float2* from) {
          sum[0] = from->x;
          sum[1] = from->y;
        });
      __syncthreads();
    }
  }

  const int tiles = static_cast<int>((c.k + kTensorK - 1) / kTensorK);
  const auto fill = [&](uint32_t stage) {
    a.fill_next(stage);
    b.fill_next(stage + A::kBytes);
  };
  const auto behind = [&](uint32_t stage) {
    return stage == shared + (kTensorStages - 1) * kStageBytes ? shared : stage + kStageBytes;
  };
  const uint32_t a_lane = A::lane_place(l, false), b_lane = B::lane_place(l, true);
#pragma unroll 1
  for (int tile = 0; tile < kTensorStages - 1; ++tile) {
    if (tile < tiles) fill(shared + static_cast<uint32_t>(tile) * kStageBytes);
    commit_copies();
  }
  uint32_t filled = shared + (kTensorStages - 1) * kStageBytes, a_tile = shared;
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    wait_for_copies<kTensorStages - 2>();
    __syncthreads();  // for all threads' copies; and whoever read the stage that is filled now has done so
    if (tile + kTensorStages - 1 < tiles) fill(filled);
    commit_copies();
    filled = a_tile;
    const uint32_t b_tile = a_tile + A::kBytes;
#pragma unroll
    for (int step = 0; step < kTensorSteps; ++step) {
      uint32_t of_b[kOfN / 2][4];
#pragma unroll
      for (int j = 0; j < kOfN / 2; ++j)
        load_matrices<b_lies == Lies::kAlongRows>(
            of_b[j], b_tile + B::matrices(b_lane, warp_n + j * 16, step));
#pragma unroll
      for (int i = 0; i < kOfM; ++i) {
        uint32_t of_a[4];
        load_matrices<a_lies == Lies::kAlongRows>(
            of_a, a_tile + A::matrices(a_lane, warp_m + i * 16, step));
#pragma unroll
        for (int j = 0; j < kOfN; ++j)
          multiply_add(sums[i][j], of_a, of_b[j / 2][j % 2 * 2], of_b[j / 2][j % 2 * 2 + 1]);
      }
    }
    a_tile = behind(a_tile);
  }
  const MatmulCuda out = problem();
#pragma unroll 1
  for (int of_row = 0; of_row < kWarpsM; ++of_row) {
    __syncthreads();
    if (of_row == warp_row) for_sums([&](const float* sum, float2* to) { *to = {sum[0], sum[1]}; });
    __syncthreads();
    for_lines(out, of_row, [&](int64_t at, int there, const float2* from) {
      if (there > 0) store_two(out.c, out.c_bf16 != 0, at, *from, there > 1);
    });
  }
}

}  // namespace ferry::ops
